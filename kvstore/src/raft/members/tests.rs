//! A removal of which only the first step was taken, and who may take the second.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::*;
use crate::raft::bare::Bare;

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
    let desk = Arc::clone(&nodes[0].desk);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let adding = nodes[0].tasks.spawn("adding", async move {
        desk.add_learner(9, address, "127.0.0.1:1".to_owned()).await
    });
    let (asked, _) = listener.accept().await.unwrap();
    begin_removal(&nodes[0], 3).await;
    drop(asked);
    adding.await.unwrap().unwrap();
    has_members(&nodes[0], &[1, 2, 9], 2);
    for node in nodes {
        node.end().await;
    }
}
