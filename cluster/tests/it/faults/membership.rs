//! Members come and go while clients write.
//! Invariant: the cluster never loses what it acknowledged to other members, and a number is never taken
//! over by an empty disk.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, let_in, start_newcomer, three_and_newcomers, wait_for_member, wait_until};
use crate::load::{Load, Plan, verify};

#[tokio::test]
async fn members_change_while_clients_write() {
    let cluster = three_and_newcomers(1).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 500).await;
    let _newcomer = start_newcomer(&cluster, 4);
    let client = cluster.client();
    let_in(&cluster, &client, 4).await;
    load.progress(Instant::now(), 300).await;

    let leader: u64 = cluster.leader().await.trim_start_matches('n').parse().unwrap();
    let gone = (1..=3).find(|id| *id != leader).unwrap();
    client.member_remove(gone).await.unwrap();
    cluster.term(&format!("n{gone}")).await;
    load.progress(Instant::now(), 300).await;
    client.leader_transfer(4).await.unwrap();
    wait_for_member(&client, 4, "the newcomer leads", |members, _| {
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
    wipe_a_member().await;
}

pub(crate) async fn wipe_a_member() {
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

#[tokio::test]
async fn a_member_that_lost_its_disk_comes_back_under_a_new_number() {
    let cluster = three_and_newcomers(1).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 300).await;
    let lost = cluster.follower().await;
    let id: u64 = lost.trim_start_matches('n').parse().unwrap();
    cluster.kill(&lost).await;
    std::fs::remove_dir_all(cluster.data().join(&lost)).unwrap();
    let client = cluster.client();
    client.member_remove(id).await.unwrap();
    let _newcomer = start_newcomer(&cluster, 4);
    let_in(&cluster, &client, 4).await;
    load.progress(Instant::now(), 300).await;
    // The old number is gone for good, although it is no member any more.
    let mut old = start_newcomer(&cluster, id);
    let ended = tokio::time::timeout(Duration::from_secs(30), old.wait()).await;
    assert!(!ended.unwrap().unwrap().success());
    let log = cluster.log(&lost);
    assert!(log.contains("node-id-reused"), "{log}");
    // With one more down, the newcomer is needed for the majority.
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    load.progress(Instant::now(), 300).await;
    cluster.start_node(&leader).await;
    cluster.wait_for_state(&leader, "running").await;
    let rest = ["n1", "n2", "n3", "n4"].into_iter().filter(|name| *name != lost);
    let rest: Vec<&str> = rest.collect();
    verify(&cluster, &rest, load.stop().await).await;
}

/// One command, also where the new node begins only while it waits.
#[tokio::test]
async fn a_dead_member_is_replaced_by_one_command() {
    let cluster = three_and_newcomers(1).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 300).await;
    let dead = cluster.follower().await;
    cluster.kill(&dead).await;
    let new = cluster.config.node(4).unwrap().clone();
    let old = dead.trim_start_matches('n').to_owned();
    let arguments = [
        "kv",
        "member",
        "replace",
        &old,
        "4",
        "--client",
        &new.client,
        "--peer",
        &new.peer,
    ];
    let mut replacing = cluster.command(&arguments);
    replacing
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let replacing = replacing.spawn().unwrap();
    let client = cluster.client();
    wait_for_member(&client, 4, "the new node is a learner", |_, member| {
        member.is_some()
    })
    .await;
    let _newcomer = start_newcomer(&cluster, 4);
    let ran = crate::harness::Ran::of(replacing.wait_with_output().await.unwrap());
    // Nobody starts a node that the configuration does not have.
    let edit = format!("id = 4, client = \"{}\", peer = \"{}\"", new.client, new.peer);
    assert!(ran.stderr.contains(&edit), "{}", ran.stderr);
    ran.ok();
    let members = client.cluster().await.unwrap().members;
    let mut voters: Vec<String> = members
        .iter()
        .map(|member| format!("n{} {}", member.id, member.voter))
        .collect();
    voters.sort();
    let mut expected: Vec<String> = (1..=4)
        .map(|id| format!("n{id}"))
        .filter(|name| *name != dead)
        .collect();
    let names: Vec<String> = expected.clone();
    for name in &mut expected {
        name.push_str(" true");
    }
    assert_eq!(voters, expected);
    // Again it finds everything done.
    cluster.run(&arguments).await.ok();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    verify(&cluster, &names, load.stop().await).await;
}
