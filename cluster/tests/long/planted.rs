//! Bugs planted on purpose, each under the test that is there to find it.
//! Invariant: the test fails; one that passes over a planted bug would pass over a real one too.
//! A disk that never syncs is another one: `power_loss` puts it under an unchanged store.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use service::planted::{Bug, VARIABLE, plant};

use crate::faults::{crash, membership, pause, replay, rules};
use crate::harness::{Cluster, SOON, let_in, three_and_newcomers};
use crate::load::say;
use crate::power_loss;

/// How a loss shows: a key is gone, or a node whose log has a hole cannot go on and never comes to say its hash, or it
/// goes on with what it had applied of entries that the others have written anew.
const LOSS: &[&str] = &["was acknowledged", "the hash of", "the nodes differ at revision"];
/// Of a cluster that lost even whom it let in: a writer was answered as nobody may be, and left the book locked.
const LOST_TOKENS: &str = "PoisonError";
/// To the clients of `menagerie chaos` also by what they saw twice, or no longer see.
const CHAOS_LOSS: &[&str] = &[
    "seen instead of",
    "the accounts hold",
    "is not linearizable",
    " came after ",
];
/// What a read of a weaker level says to have shown, and has not.
const TOO_OLD: &[&str] = &["a read shows less than it promised"];

fn is_said(said: &str, words: &[&str]) -> bool {
    words.iter().any(|word| said.contains(word))
}

/// Runs the test with the bug in every process, and demands that it fails, and with one of these words: one that fails
/// for another reason has found nothing.
async fn is_found(bug: Bug, words: &[&str], test: impl Future<Output = ()>) {
    plant(bug);
    let Err(said) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("{bug:?} was planted, and the test found nothing");
    };
    let said = said
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| said.downcast_ref::<&str>().map(|said| (*said).to_owned()));
    let said = said.unwrap_or_default();
    assert!(
        is_said(&said, words),
        "{bug:?} was planted, and the test failed for another reason: {said}"
    );
    say(&format!(
        "{bug:?} was found: {}",
        said.lines().next().unwrap_or_default()
    ));
}

#[tokio::test]
async fn an_answer_before_its_sync_is_found() {
    let words = [LOSS, &[LOST_TOKENS]].concat();
    is_found(Bug::SyncAfterAnswer, &words, power_loss::all_lose_power()).await;
}

#[tokio::test]
async fn stale_reads_of_followers_are_found() {
    is_found(
        Bug::StaleReads,
        &["is not linearizable"],
        pause::pause_the_leader(),
    )
    .await;
}

#[tokio::test]
async fn answers_that_a_snapshot_lost_are_found() {
    is_found(
        Bug::AnswersLostOnSnapshot,
        &["the answer was forgotten"],
        replay::repeat_after_a_snapshot(),
    )
    .await;
}

#[tokio::test]
async fn repeats_without_their_key_are_found() {
    let kills = async { crash::kill_leaders(&Cluster::start(3).await, 10).await };
    is_found(Bug::RetryWithoutKey, &["load/counter/"], kills).await;
}

#[tokio::test]
async fn an_applied_id_that_comes_late_is_found() {
    is_found(
        Bug::AppliedIdLate,
        &["after round"],
        replay::replay_after_restarts(),
    )
    .await;
}

#[tokio::test]
async fn a_reused_number_is_found() {
    is_found(
        Bug::NodeIdReused,
        &["the empty disk is refused"],
        membership::wipe_a_member(),
    )
    .await;
}

#[tokio::test]
async fn rules_that_are_asked_only_at_the_edge_are_found() {
    is_found(Bug::RulesAtTheEdge, &["round "], rules::withdraw_rights()).await;
}

/// For bugs that show without a fault: some seconds with one that hardly anybody notices.
const MILD: &str = "--seed 2 --minutes 0.1 --only kill-follower";

/// The verdict of `menagerie chaos` itself must be able to fail, by what the clients saw and by what is left in the end.
/// `how` it is run is what one would type.
async fn chaos_finds(bug: Bug, how: &str, words: &[&str]) {
    plant(bug);
    let cluster = Cluster::new(1);
    let arguments: Vec<&str> = ["chaos"].into_iter().chain(how.split_whitespace()).collect();
    let told = cluster.run(&arguments).await.fails(1);
    assert!(is_said(&told, words), "it failed for another reason: {told}");
}

#[tokio::test]
async fn chaos_finds_stale_reads() {
    chaos_finds(
        Bug::StaleReads,
        "--seed 5 --minutes 0.5 --only pause-follower,kill-follower",
        &["is not linearizable"],
    )
    .await;
}

/// The old leader still hears its clients, and others lead without it.
#[tokio::test]
async fn chaos_finds_bounded_reads_of_any_age() {
    let how = "--seed 2 --minutes 0.1 --only leader-without-peers";
    chaos_finds(Bug::AgeIgnored, how, TOO_OLD).await;
}

#[tokio::test]
async fn chaos_finds_reads_before_the_revision_they_ask_for() {
    chaos_finds(Bug::RevisionNotAwaited, MILD, TOO_OLD).await;
}

#[tokio::test]
async fn chaos_finds_an_answer_before_its_sync() {
    let how = "--seed 5 --minutes 0.5 --only power-loss-of-all";
    chaos_finds(Bug::SyncAfterAnswer, how, CHAOS_LOSS).await;
}

#[tokio::test]
async fn chaos_finds_repeats_without_their_key() {
    chaos_finds(
        Bug::RetryWithoutKey,
        "--seed 5 --minutes 0.5 --only kill-leader,kill-all",
        &["is not linearizable", "happened again"],
    )
    .await;
}

/// Leaders end, or stand still until another leads, with what followers have passed on to them in hand. The next leader
/// mostly has it; a follower that asks it once more has it done twice.
#[tokio::test]
async fn chaos_finds_writes_without_a_key_that_nodes_repeat() {
    let how = "--seed 5 --minutes 1 --only kill-leader,pause-leader";
    chaos_finds(Bug::RepeatsWithoutKey, how, &["happened again"]).await;
}

/// A node that stops in good order keeps all that it has applied, and then takes some of it for not applied. What has no
/// key it does again, and no other node does.
#[tokio::test]
async fn chaos_finds_what_a_restart_applies_again() {
    let again = [
        "have seen different changes",
        "seen instead of",
        "happened again",
        "is not linearizable",
        // Transfers are done again too, and no more is told than so much.
        "the accounts hold",
    ];
    let how = "--seed 5 --minutes 0.3 --only rolling-restart";
    chaos_finds(Bug::AppliedIdLate, how, &again).await;
}

/// All members have the bug, so that they agree, and only clients know what they wrote.
#[tokio::test]
async fn chaos_finds_values_that_nobody_wrote() {
    chaos_finds(Bug::ValuesDrift, MILD, &["seen instead of"]).await;
}

/// No client asks how often a key was written, so that only the hash of all that there is tells. No two members agree, so
/// that none of them ends by itself as the one that is wrong.
#[tokio::test]
async fn chaos_finds_members_that_differ() {
    chaos_finds(Bug::MembersCountApart, MILD, &["the nodes differ at revision"]).await;
}

#[tokio::test]
async fn a_node_that_is_not_what_its_log_leads_to_is_found() {
    chaos_finds(Bug::MembersCountApart, MILD, &["a replay of the log of"]).await;
}

/// Nobody repeats a write so late, so that only what is left on the disks tells. A follower that was down for more than a
/// second mostly needs a snapshot, since the others have given up what it lacks; by this seed the first four are.
#[tokio::test]
async fn chaos_finds_answers_that_a_snapshot_lost() {
    let how = "--seed 3 --minutes 0.5 --only kill-follower";
    let lost = [
        "do not have the same kept answers",
        // Those that were lost are counted for ever.
        "do not have the same counters",
    ];
    chaos_finds(Bug::AnswersLostOnSnapshot, how, &lost).await;
}

#[tokio::test]
async fn chaos_finds_money_that_a_transfer_leaves_behind() {
    chaos_finds(Bug::HalfTransactions, MILD, &["the accounts hold"]).await;
}

/// By what a client read of single keys, beside what the watchers have seen.
#[tokio::test]
async fn chaos_finds_pages_of_another_moment_than_the_first() {
    let moved = ["is not linearizable", "a read of chaos/r/"];
    chaos_finds(Bug::PagesMoveOn, MILD, &moved).await;
}

#[tokio::test]
async fn chaos_finds_a_revision_that_is_told_late() {
    chaos_finds(Bug::RevisionLags, MILD, &["revisions go back"]).await;
}

/// No watch breaks, or what it then misses would be told in the place of all else.
#[tokio::test]
async fn chaos_finds_a_collector_that_removes_what_history_still_has() {
    let how = "--seed 2 --minutes 0.1 --only pause-follower";
    let gone = ["a read of chaos/account/", "the nodes differ at revision"];
    chaos_finds(Bug::CollectsTooMuch, how, &gone).await;
}

/// Whoever held a lease when the leader was killed may have stopped renewing it just before. In the first seconds nobody
/// has yet.
#[tokio::test]
async fn chaos_finds_leases_that_never_end() {
    let how = "--seed 2 --minutes 0.2 --only kill-leader";
    chaos_finds(Bug::LeasesForgotten, how, &["outlived its lease"]).await;
}

/// By this seed two of the three holders begin with a lease that they renew for longer than it lasts.
#[tokio::test]
async fn chaos_finds_leases_that_end_early() {
    let early = [
        "after its lease of 2s was renewed",
        "no fault may have a lease of 2s",
    ];
    chaos_finds(Bug::RenewalsForgotten, MILD, &early).await;
}

/// Nobody renews them any more, and between then and the end that they should have somebody looks.
#[tokio::test]
async fn chaos_finds_leases_that_end_before_their_time_is_over() {
    chaos_finds(Bug::LeasesShort, MILD, &["after its lease of 2s was renewed"]).await;
}

/// A walk mostly waits for its second page when the leader is killed, and goes on when history was given up behind it
/// under the next one.
#[tokio::test]
async fn chaos_finds_pins_that_a_new_leader_forgets() {
    let how = "--seed 2 --minutes 0.4 --only kill-leader";
    chaos_finds(Bug::PinsForgotten, how, &["and its pin is lost"]).await;
}

/// All watches break, one after the other, so that the others have seen what one leaves out.
const WATCHES_BREAK: &str = "--seed 2 --minutes 0.05 --only rolling-restart";

#[tokio::test]
async fn chaos_finds_an_event_that_a_watch_left_out() {
    let left_out = [
        "have seen different changes",
        "seen instead of",
        "the accounts hold",
    ];
    chaos_finds(Bug::WatchSkips, WATCHES_BREAK, &left_out).await;
}

#[tokio::test]
async fn chaos_finds_an_event_that_a_watch_told_twice() {
    chaos_finds(Bug::WatchRepeats, WATCHES_BREAK, &["had been seen before"]).await;
}

/// The bug is in one member only: the others are right, and it has to find out by itself.
#[tokio::test]
async fn a_member_that_drifts_away_ends_and_says_so() {
    let mut cluster = three_and_newcomers(1).await;
    cluster.config.store.agreement_every_s = 1;
    cluster.write_config();
    let log = std::fs::File::create(cluster.data().join("logs/n4.log")).unwrap();
    let mut newcomer = cluster
        .command(&["node", "--id", "4"])
        .env(VARIABLE, "ValuesDrift")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = cluster.client();
    let_in(&cluster, &client, 4).await;
    client.put("greeting", "hello").await.unwrap();
    let ended = tokio::time::timeout(SOON, newcomer.wait()).await;
    let ended = ended
        .expect("it goes on with other values than the rest")
        .unwrap();
    assert!(!ended.success());
    let log = cluster.log("n4");
    assert!(log.contains("most voters have the state hash"), "{log}");
    assert!(cluster.data().join("n4/DAMAGED").is_file());
    let greeting = client.get("greeting").await.unwrap().unwrap();
    assert_eq!(greeting.value.as_deref(), Some(b"hello".as_slice()));
}
