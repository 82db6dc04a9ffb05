//! Members come and go while clients write.
//! Invariant: the cluster never loses what it acknowledged to other members, and a number is never taken
//! over by an empty disk.

use std::fs::File;
use std::time::{Duration, Instant};

use kvstore_client::KvClient;
use kvstore_client::wire::cluster::{Cluster as Members, Member, NewMember};
use service::config::Role;
use tokio::process::Child;

use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Load, Plan, verify};

/// Three voters run; the fourth node is configured as one that only learns, and is started by hand.
async fn three_and_a_newcomer() -> Cluster {
    let mut cluster = Cluster::with(4, |config| {
        config.store.snapshot_log_entries = 200;
        config.store.log_keep_entries = 20;
    });
    let mut fourth = cluster.config.nodes.pop().unwrap();
    cluster.write_config();
    cluster.up().await;
    fourth.role = Role::Learner;
    cluster.config.nodes.push(fourth);
    cluster.write_config();
    cluster
}

/// The launcher does not know it.
fn start_newcomer(cluster: &Cluster) -> Child {
    let log = File::create(cluster.data().join("logs/n4.log")).unwrap();
    let mut command = cluster.command(&["node", "--id", "4"]);
    command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().unwrap()
}

async fn wait_for_member(client: &KvClient, what: &str, holds: impl Fn(&Members, Option<&Member>) -> bool) {
    wait_until(what, SOON, async || {
        let members = client.cluster().await.map_err(|error| format!("{error:?}"))?;
        let member = members.members.iter().find(|member| member.id == 4);
        holds(&members, member)
            .then_some(())
            .ok_or_else(|| format!("{members:?}"))
    })
    .await;
}

#[tokio::test]
async fn members_change_while_clients_write() {
    let cluster = three_and_a_newcomer().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 500).await;
    let _newcomer = start_newcomer(&cluster);
    let client = cluster.client();
    let fourth = cluster.config.node(4).unwrap();
    let member = NewMember {
        id: 4,
        peer_address: fourth.peer.clone(),
        client_address: fourth.client.clone(),
    };
    client.member_add(&member).await.unwrap();
    wait_for_member(&client, "the newcomer has caught up", |_, member| {
        member.is_some_and(|member| !member.voter && member.lag.is_some_and(|lag| lag < 100))
    })
    .await;
    wait_until("the newcomer is promoted", SOON, async || {
        let promoted = client.member_promote(4).await;
        promoted.map_err(|error| format!("{error:?}"))
    })
    .await;
    wait_for_member(&client, "the newcomer votes", |_, member| {
        member.is_some_and(|member| member.voter)
    })
    .await;
    load.progress(Instant::now(), 300).await;

    let leader: u64 = cluster.leader().await.trim_start_matches('n').parse().unwrap();
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    client.member_remove(gone).await.unwrap();
    cluster.term(&format!("n{gone}")).await;
    load.progress(Instant::now(), 300).await;
    client.leader_transfer(4).await.unwrap();
    wait_for_member(&client, "the newcomer leads", |members, _| {
        members.leader == Some(4)
    })
    .await;
    load.progress(Instant::now(), 300).await;

    let members = client.cluster().await.unwrap().members;
    let mut voters: Vec<u64> = members
        .iter()
        .filter(|member| member.voter)
        .map(|member| member.id)
        .collect();
    voters.sort_unstable();
    let expected: Vec<u64> = (1..=4).filter(|id| *id != gone).collect();
    assert_eq!(voters, expected);
    // The old majority is not enough any more: with one of the three gone the other two go on.
    cluster.kill(&format!("n{leader}")).await;
    load.progress(Instant::now(), 300).await;
    cluster.start_node(&format!("n{leader}")).await;
    cluster.wait_for_state(&format!("n{leader}"), "running").await;
    let names: Vec<String> = expected.iter().map(|id| format!("n{id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    verify(&cluster, &names, load.stop().await).await;
}

#[tokio::test]
async fn a_number_is_not_taken_over_by_an_empty_disk() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let wiped = cluster.follower().await;
    cluster.kill(&wiped).await;
    std::fs::remove_dir_all(cluster.data().join(&wiped)).unwrap();
    cluster.start_node(&wiped).await;
    wait_until("the empty disk is refused", Duration::from_secs(30), async || {
        let log = cluster.log(&wiped);
        log.contains("node-id-reused").then_some(()).ok_or(log)
    })
    .await;
    cluster.kill(&wiped).await;
    load.progress(Instant::now(), 200).await;
    let rest: Vec<&str> = ["n1", "n2", "n3"]
        .into_iter()
        .filter(|name| *name != wiped)
        .collect();
    verify(&cluster, &rest, load.stop().await).await;
}
