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
/// An election, and as much again for the machine.
const GAP_MAX: Duration = Duration::from_secs(1);

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

/// What such a node has grows old, and whoever watches it must notice that and go elsewhere.
#[tokio::test]
async fn a_watch_on_a_node_that_is_cut_off_falls_silent() {
    const PROGRESS_EVERY: Duration = Duration::from_secs(5);
    let cluster = Cluster::start(3).await;
    let network = Network::of(&cluster).await;
    let follower = cluster.follower().await;
    let request = cluster.request("GET", &follower, "/v1/watch?prefix=quiet/");
    let mut watching = request.send().await.unwrap();
    let mut heard_within = async |time: Duration| {
        let piece = tokio::time::timeout(time, watching.chunk()).await;
        piece.is_ok_and(|piece| piece.unwrap().is_some())
    };
    assert!(heard_within(2 * PROGRESS_EVERY).await, "it has begun");
    assert!(heard_within(2 * PROGRESS_EVERY).await, "it tells of its progress");
    network.isolate(&[id_of(&follower)]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    // What was told before it was out of touch may still be on its way.
    while heard_within(Duration::from_millis(50)).await {}
    assert!(
        !heard_within(2 * PROGRESS_EVERY).await,
        "a node that knows nothing tells that nothing happened"
    );
    network.heal();
    assert!(heard_within(4 * PROGRESS_EVERY).await, "it is back");
}

/// It was done elsewhere meanwhile, and the answer that was kept for its repetition is forgotten.
#[tokio::test]
async fn a_proposal_that_lay_in_a_cut_link_is_not_done_again() {
    const TTL: Duration = Duration::from_secs(4);
    // Longer than any silence that a node lets pass.
    const CUT: Duration = Duration::from_secs(12);
    let cluster = Cluster::start(3).await;
    let network = Network::of(&cluster).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let add = |name: &str| {
        let body = serde_json::json!({"then": [{"add": {"key": "count", "by": 1}}]});
        let request = cluster.request("POST", name, "/v1/txn").json(&body);
        let request = request.header("Idempotency-Key", "once");
        request.header("Idempotency-TTL", TTL.as_secs()).send()
    };
    // A link that is cut in the middle of its work, and was never idle.
    for _ in 0..20 {
        only(&cluster, &follower).put("warm", "up").await.unwrap();
    }
    network.isolate(&[id_of(&follower)]);
    let cut = Instant::now();
    let lost = add(&follower).await.unwrap();
    assert_eq!(lost.status(), 503, "it lies in the link");
    assert_eq!(add(&leader).await.unwrap().status(), 200);
    tokio::time::sleep_until((cut + CUT).into()).await;
    // Time goes on for the cluster with what is written.
    cluster
        .client_of(vec![cluster.address(&leader).to_owned()])
        .put("later", "x")
        .await
        .unwrap();
    network.heal();
    all_agree_on_a_leader(&cluster).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = cluster.client().get("count").await.unwrap().unwrap();
    assert_eq!(count.value.as_deref(), Some(b"1".as_slice()));
}
