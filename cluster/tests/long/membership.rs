//! A cluster that grows from three to five and shrinks to three others, and to one, while clients write.
//! Invariant: at every step a majority of the members of that moment has everything; newcomers come by snapshot.

use std::time::Instant;

use crate::harness::{Cluster, let_in, start_newcomer, three_and_newcomers, wait_for_member};
use crate::load::{Leaders, Load, Plan, addresses_of, snapshot_installed, verify};

#[tokio::test]
async fn three_members_become_five_and_three_others_under_load() {
    let cluster = three_and_newcomers(2).await;
    let load = Load::start(&cluster, Plan::many_entries());
    let leaders = Leaders::watch(&cluster);
    load.progress(Instant::now(), 1500).await;
    let client = cluster.client();
    let _newcomers = [start_newcomer(&cluster, 4), start_newcomer(&cluster, 5)];
    for id in [4, 5] {
        let_in(&cluster, &client, id).await;
        // What came before it is no longer in anybody's log.
        snapshot_installed(&cluster, &format!("n{id}")).await;
        load.progress(Instant::now(), 300).await;
    }
    // Of five, two may be gone.
    for name in ["n1", "n2"] {
        cluster.kill(name).await;
    }
    load.progress(Instant::now(), 300).await;
    for name in ["n1", "n2"] {
        cluster.start_node(name).await;
        cluster.wait_for_state(name, "running").await;
    }
    // One after the other, whoever of them leads. One that is gone may never hear of it, so those that stay are asked.
    let client = cluster.client_of(addresses_of(&cluster, &["n3", "n4", "n5"]));
    for id in [1, 2] {
        client.member_remove(id).await.unwrap();
        wait_for_member(&client, id, "the member is gone", |_, member| member.is_none()).await;
        load.progress(Instant::now(), 300).await;
        cluster.term(&format!("n{id}")).await;
    }
    let present = client.cluster().await.unwrap();
    let mut voters: Vec<u64> = present
        .members
        .iter()
        .filter(|member| member.voter)
        .map(|member| member.id)
        .collect();
    voters.sort_unstable();
    assert_eq!(voters, [3, 4, 5]);
    // Of three, one may be gone, and it is one of these three that counts.
    cluster.kill("n3").await;
    load.progress(Instant::now(), 300).await;
    cluster.start_node("n3").await;
    cluster.wait_for_state("n3", "running").await;
    leaders.stop().await;
    verify(&cluster, &["n3", "n4", "n5"], load.stop().await).await;
}

/// Each time it is the leader that has to go, so that whoever stays takes over within the change.
#[tokio::test]
async fn all_members_but_one_are_removed_under_load() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 500).await;
    let mut rest: Vec<&str> = crate::ALL.to_vec();
    while rest.len() > 1 {
        let leader = cluster.leader().await;
        let id: u64 = leader.trim_start_matches('n').parse().unwrap();
        rest.retain(|name| *name != leader);
        let client = cluster.client_of(addresses_of(&cluster, &rest));
        client.member_remove(id).await.unwrap();
        wait_for_member(&client, id, "the member is gone", |_, member| member.is_none()).await;
        load.progress(Instant::now(), 300).await;
        cluster.term(&leader).await;
        load.progress(Instant::now(), 300).await;
    }
    // The last one is a majority of its own, also after it was killed.
    cluster.kill(rest[0]).await;
    cluster.start_node(rest[0]).await;
    cluster.wait_for_state(rest[0], "running").await;
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &rest, load.stop().await).await;
}
