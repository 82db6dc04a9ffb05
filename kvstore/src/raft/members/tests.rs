//! A removal of which only the first step was taken, and who may take the second; what is told of changes that only the
//! leader's log has; what was changed while a member was asked for its disk; and to whom the lead is handed.

use std::pin::pin;
use std::sync::Arc;

use service::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::command::{Action, Proposal, encode_commands};
use crate::raft::bare::{Bare, DEADLINE, calm, trust};
use crate::raft::network::handshake::{Trust, accept};
use crate::raft::view::LEAD_LAG_MAX;

/// Longer than an answer takes that waits for nobody.
const SOON: Duration = Duration::from_millis(300);
/// Nobody is there.
const NOWHERE: &str = "127.0.0.1:1";

/// An addition that waits for the answer of the node that it names, until the connection is dropped.
async fn begin_addition(leader: &Bare) -> (JoinHandle<Result<(), MemberRefused>>, TcpStream) {
    let desk = Arc::clone(&leader.desk);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let adding = leader.tasks.spawn("adding", async move {
        desk.add_learner(9, address, NOWHERE.to_owned()).await
    });
    let (asked, _) = listener.accept().await.unwrap();
    (adding, asked)
}

/// Takes the first step alone: whoever asked for the removal is gone before the second.
async fn begin_removal(leader: &Bare, id: u64) {
    let removal: ChangeMembers<u64, Member> = ChangeMembers::RemoveVoters([id].into());
    tokio::select! {
        biased;
        () = leader.knows("the first step", |view| view.joint) => {}
        _removed = leader.desk.raft.change_membership(removal, RETAIN) => panic!("both steps were taken"),
    }
    leader.leads().await;
}

/// The change is over, and these are all members, of which so many voters come first.
fn has_members(node: &Bare, members: &[u64], voters: usize) {
    let view = view::view(&node.desk.raft);
    assert!(!view.joint, "{view:?}");
    let present: Vec<u64> = view.members.keys().copied().collect();
    assert_eq!(present, members);
    assert_eq!(view.voters, &members[..voters]);
}

#[tokio::test]
async fn whoever_takes_the_second_step_of_a_removal_removes() {
    let mut nodes = Bare::cluster(4).await;
    // Of the others only the second stands for election.
    for node in &nodes[2..] {
        node.desk.raft.runtime_config().elect(false);
    }
    begin_removal(&nodes[0], 4).await;
    for node in &nodes[1..] {
        node.knows("the first step", |view| view.joint).await;
    }
    nodes.remove(0).end().await;
    let heir = &nodes[0];
    heir.leads().await;
    heir.desk.finish_change().await.unwrap();
    has_members(heir, &[1, 2, 3], 3);
    assert_eq!(heir.desk.remove(4).await, Err(MemberRefused::NotFound));
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn a_removal_that_is_asked_for_again_takes_the_second_step() {
    let nodes = Bare::cluster(3).await;
    let desk = &nodes[0].desk;
    begin_removal(&nodes[0], 3).await;
    desk.remove(3).await.unwrap();
    has_members(&nodes[0], &[1, 2], 2);
    assert_eq!(desk.remove(3).await, Err(MemberRefused::NotFound));
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn who_is_halfway_removed_is_not_promoted() {
    let nodes = Bare::cluster(3).await;
    let desk = &nodes[0].desk;
    begin_removal(&nodes[0], 3).await;
    assert_eq!(desk.promote(3).await, Err(MemberRefused::NotFound));
    has_members(&nodes[0], &[1, 2], 2);
    assert_eq!(desk.promote(2).await, Ok(()));
    for node in nodes {
        node.end().await;
    }
}

/// It was asked for before the removal, and had to wait for the answer of the node that is to be added.
#[tokio::test]
async fn who_is_added_between_the_steps_of_a_removal_keeps_nobody() {
    let nodes = Bare::cluster(3).await;
    let (adding, asked) = begin_addition(&nodes[0]).await;
    begin_removal(&nodes[0], 3).await;
    drop(asked);
    adding.await.unwrap().unwrap();
    has_members(&nodes[0], &[1, 2, 9], 2);
    for node in nodes {
        node.end().await;
    }
}

/// Three nodes, of which the first leads, and goes on for long before it misses the others.
async fn patient() -> Vec<Bare> {
    let mut config = calm();
    (config.store.election_min_ms, config.store.election_max_ms) = (60_000, 90_000);
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Box::pin(Bare::start(id, &config)).await);
    }
    Bare::unite(&nodes).await;
    nodes
}

/// From now on it hears nobody.
async fn deafen(node: &Bare) {
    node.tasks.stop();
    assert!(node.tasks.drain(DEADLINE).await, "its connections end");
}

/// From now on nobody hears the first one.
async fn cut_off(nodes: &[Bare]) {
    for node in &nodes[1..] {
        deafen(node).await;
    }
}

/// What was asked for is neither told as made nor as found.
async fn is_not_told(asked: impl Future<Output = Result<(), MemberRefused>>) {
    let told = tokio::time::timeout(SOON, asked).await;
    assert!(told.is_err(), "{told:?}");
}

/// Here in the log, and nowhere else: another leader would not have it.
async fn a_change_that_only_the_leader_has(what: &str, change: ChangeMembers<u64, Member>, node: &Bare) {
    let view = view::view(&node.desk.raft);
    let (desk, before) = (Arc::clone(&node.desk), (view.members, view.joint));
    node.tasks
        .spawn("changing", async move { desk.change(change).await });
    let changed = |view: &RaftView| (&view.members, view.joint) != (&before.0, before.1);
    node.knows(what, changed).await;
}

fn member() -> Member {
    Member {
        peer_address: NOWHERE.to_owned(),
        client_address: NOWHERE.to_owned(),
    }
}

async fn add(leader: &Bare) -> Result<(), MemberRefused> {
    let Member {
        peer_address,
        client_address,
    } = member();
    leader.desk.add_learner(9, peer_address, client_address).await
}

#[tokio::test]
async fn who_is_added_in_the_leaders_log_alone_is_not_told_as_added() {
    let nodes = patient().await;
    cut_off(&nodes).await;
    let adding = ChangeMembers::AddNodes([(9, member())].into());
    a_change_that_only_the_leader_has("who is added", adding, &nodes[0]).await;
    is_not_told(add(&nodes[0])).await;
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn who_is_removed_in_the_leaders_log_alone_is_not_told_as_gone() {
    let nodes = patient().await;
    for asked in ["once", "and again"] {
        assert_eq!(add(&nodes[0]).await, Ok(()), "{asked}");
    }
    cut_off(&nodes).await;
    let removing = ChangeMembers::RemoveNodes([9].into());
    a_change_that_only_the_leader_has("who is removed", removing, &nodes[0]).await;
    is_not_told(nodes[0].desk.remove(9)).await;
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn a_change_is_not_told_as_over_whose_end_only_the_leader_has() {
    let nodes = patient().await;
    let desk = &nodes[0].desk;
    begin_removal(&nodes[0], 3).await;
    cut_off(&nodes).await;
    let second = ChangeMembers::AddVoterIds([].into());
    a_change_that_only_the_leader_has("the second step", second, &nodes[0]).await;
    // Whoever asked for the removal, who asks once more, and who asks for what the end would be.
    is_not_told(desk.change_ends()).await;
    is_not_told(desk.remove(3)).await;
    is_not_told(desk.promote(2)).await;
    for node in nodes {
        node.end().await;
    }
}

/// Who asked first waited longer for the node that it named.
#[tokio::test]
async fn who_wants_a_number_that_another_got_meanwhile_is_not_told_as_added() {
    let nodes = Bare::cluster(1).await;
    let (adding, asked) = begin_addition(&nodes[0]).await;
    assert_eq!(add(&nodes[0]).await, Ok(()));
    drop(asked);
    assert_eq!(adding.await.unwrap(), Err(MemberRefused::Exists));
    for node in nodes {
        node.end().await;
    }
}

/// A member that says who it is, once it may.
async fn say_who_it_is(listener: TcpListener, trust: Arc<Trust>, may: watch::Receiver<bool>, tasks: Tasks) {
    while let Ok((stream, _)) = listener.accept().await {
        let (trust, mut may) = (Arc::clone(&trust), may.clone());
        tasks.spawn("answering", async move {
            if may.wait_for(|may| *may).await.is_ok() {
                accept(&trust, stream).await.ok();
            }
        });
    }
}

#[tokio::test]
async fn who_became_a_voter_meanwhile_and_is_halfway_removed_is_not_promoted() {
    let (nodes, folder) = (Bare::cluster(3).await, tempfile::tempdir().unwrap());
    let (desk, tasks) = (Arc::clone(&nodes[0].desk), nodes[0].tasks.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let learner = Member {
        peer_address: listener.local_addr().unwrap().to_string(),
        ..Member::default()
    };
    let (may, told) = watch::channel(false);
    let saying = say_who_it_is(listener, trust(folder.path(), 4), told, tasks.clone());
    tasks.spawn("learner", saying);
    let adding = ChangeMembers::AddNodes([(4, learner)].into());
    desk.change(adding).await.unwrap();
    nodes[0]
        .knows("the learner", |view| view.members.contains_key(&4))
        .await;
    let mut promoting = pin!(desk.promote(4));
    tokio::select! {
        biased;
        told = &mut promoting => panic!("nobody has said who it is: {told:?}"),
        () = std::future::ready(()) => {}
    }
    desk.change(ChangeMembers::AddVoterIds([4].into())).await.unwrap();
    begin_removal(&nodes[0], 4).await;
    may.send_replace(true);
    promoting.await.unwrap_err();
    desk.remove(4).await.unwrap();
    has_members(&nodes[0], &[1, 2, 3], 3);
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn the_lead_is_not_handed_to_who_lacks_much() {
    let nodes = patient().await;
    let desk = &nodes[0].desk;
    deafen(&nodes[2]).await;
    let writes = (0..=LEAD_LAG_MAX).map(|_| {
        let nothing = Proposal::new(0, &encode_commands(&[]));
        desk.raft.client_write(nothing)
    });
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    let refused = desk.hand_over(3).await;
    assert!(
        matches!(refused, Err(MemberRefused::NotCaughtUp { lag }) if lag > LEAD_LAG_MAX),
        "{refused:?}"
    );
    // It goes on leading, and hands over to who has it all.
    desk.propose_own(Action::AutoCompact { revision: 0 })
        .await
        .unwrap();
    assert_eq!(desk.hand_over(2).await, Ok(()));
    for node in nodes {
        node.end().await;
    }
}
