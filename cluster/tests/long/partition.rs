//! A network that falls apart: the leader alone, a follower alone, everybody alone.
//! Invariant: a minority acknowledges nothing and serves no linearizable read; the majority goes on.

use std::time::{Duration, Instant};

use kvstore_client::wire::level::Consistency;
use kvstore_client::{Error, KvClient, ReadOptions};

use crate::ALL;
use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Leaders, Load, Plan, Registers, say, verify};
use crate::network::Network;

const CUT: Duration = Duration::from_secs(3);
const GAP_MAX: Duration = Duration::from_millis(600);

fn id_of(name: &str) -> u64 {
    name.trim_start_matches('n').parse().unwrap()
}

fn only(cluster: &Cluster, name: &str) -> KvClient {
    let client = cluster.client_of(vec![cluster.address(name).to_owned()]);
    client.with_deadline(Duration::from_millis(1500))
}

/// Demands that a node without a majority says no, and that it does not lie about the past.
async fn serves_nothing(client: &KvClient, name: &str) {
    let put = client.put("alone", name.to_owned()).await;
    assert!(
        matches!(put, Err(Error::Unknown { .. } | Error::Unavailable { .. })),
        "{name} acknowledged without a majority: {put:?}"
    );
    let read = client.get("alone").await;
    assert!(
        read.is_err(),
        "{name} served a linearizable read without a majority: {read:?}"
    );
    let local = ReadOptions {
        consistency: Consistency::Local,
        revision: None,
    };
    client.get_with("alone", local).await.unwrap();
}

async fn all_agree_on_a_leader(cluster: &Cluster) {
    for name in ALL {
        let client = only(cluster, name);
        wait_until(&format!("{name} is back"), SOON, async || {
            client.revision().await.map_err(|error| format!("{error:?}"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_and_acknowledges_nothing() {
    let cluster = Cluster::start(3).await;
    let network = Network::of(&cluster).await;
    let load = Load::start(&cluster, Plan::default());
    let leaders = Leaders::watch(&cluster);
    let registers = Registers::start(&cluster, &ALL);
    load.progress(Instant::now(), 200).await;
    for round in 0..4 {
        let leader = cluster.leader().await;
        let follower = ALL.into_iter().find(|name| *name != leader).unwrap();
        let alone = if round % 2 == 0 { leader.as_str() } else { follower };
        let client = only(&cluster, alone);
        client.revision().await.unwrap();
        let cut = Instant::now();
        network.isolate(&[id_of(alone)]);
        // What it had already sent, or had already been confirmed, may still be answered.
        tokio::time::sleep_until((cut + CUT / 3).into()).await;
        serves_nothing(&client, alone).await;
        let told = client.cluster().await.unwrap().leader;
        assert_ne!(told, Some(id_of(alone)), "{alone} still says that it leads");
        tokio::time::sleep_until((cut + CUT).into()).await;
        let gap = load.longest_gap(cut);
        say(&format!(
            "no writes for {gap:?} after {alone} was cut off; {leader} led"
        ));
        assert!(gap < GAP_MAX, "no writes for {gap:?}");
        network.heal();
        all_agree_on_a_leader(&cluster).await;
        load.progress(Instant::now(), 200).await;
    }
    registers.check().await;
    let terms = leaders.stop().await;
    assert!(
        terms.len() > 2,
        "the cut off leaders were not replaced: {terms:?}"
    );
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn without_a_majority_anywhere_nothing_is_acknowledged_until_it_heals() {
    let cluster = Cluster::start(3).await;
    let network = Network::of(&cluster).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    for _ in 0..2 {
        network.isolate(&[1, 2, 3]);
        let cut = Instant::now();
        tokio::time::sleep_until((cut + CUT / 3).into()).await;
        let silent = Instant::now();
        for name in ALL {
            serves_nothing(&only(&cluster, name), name).await;
        }
        assert_eq!(
            load.book().gaps.count_since(silent),
            0,
            "somebody acknowledged alone"
        );
        network.heal();
        all_agree_on_a_leader(&cluster).await;
        load.progress(Instant::now(), 200).await;
    }
    verify(&cluster, &ALL, load.stop().await).await;
}
