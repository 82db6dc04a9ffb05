//! Bugs planted on purpose, each under the test that is there to find it.
//! Invariant: the test fails; one that passes over a planted bug would pass over a real one too.
//! A disk that never syncs is the eighth: `power_loss` puts it under an unchanged store.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use service::planted::{Bug, VARIABLE, plant};

use crate::faults::{crash, membership, pause, replay, rules};
use crate::harness::{Cluster, SOON, let_in, three_and_newcomers};
use crate::load::say;
use crate::power_loss;

/// Runs the test with the bug in every process, and demands that it fails.
async fn is_found(bug: Bug, test: impl Future<Output = ()>) {
    plant(bug);
    let Err(said) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("{bug:?} was planted, and the test found nothing");
    };
    let said = said
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| said.downcast_ref::<&str>().map(|said| (*said).to_owned()));
    let said = said.unwrap_or_default();
    say(&format!(
        "{bug:?} was found: {}",
        said.lines().next().unwrap_or_default()
    ));
}

#[tokio::test]
async fn an_answer_before_its_sync_is_found() {
    is_found(Bug::SyncAfterAnswer, power_loss::all_lose_power()).await;
}

#[tokio::test]
async fn stale_reads_of_followers_are_found() {
    is_found(Bug::StaleReads, pause::pause_the_leader()).await;
}

#[tokio::test]
async fn answers_that_a_snapshot_lost_are_found() {
    is_found(Bug::AnswersLostOnSnapshot, replay::repeat_after_a_snapshot()).await;
}

#[tokio::test]
async fn repeats_without_their_key_are_found() {
    let kills = async { crash::kill_leaders(&Cluster::start(3).await, 10).await };
    is_found(Bug::RetryWithoutKey, kills).await;
}

#[tokio::test]
async fn an_applied_id_that_comes_late_is_found() {
    is_found(Bug::AppliedIdLate, replay::replay_after_restarts()).await;
}

#[tokio::test]
async fn a_reused_number_is_found() {
    is_found(Bug::NodeIdReused, membership::wipe_a_member()).await;
}

#[tokio::test]
async fn rules_that_are_asked_only_at_the_edge_are_found() {
    is_found(Bug::RulesAtTheEdge, rules::withdraw_rights()).await;
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
