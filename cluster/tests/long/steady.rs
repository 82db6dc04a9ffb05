//! A minute at full load, in which nothing goes wrong: then nothing may happen either. And what goes on behind it
//! all the time, when there is more history than is kept.
//! Invariant: no election without a cause, no stall, and many writes share one sync.

use serde_json::Value;

use crate::ALL;
use crate::drive::{Order, done};
use crate::harness::Cluster;
use crate::load::{metric, say};

const CLIENTS: &str = "64";
const SECONDS: &str = "60";
/// What no minute without a fault may change.
const QUIET: [&str; 2] = ["kv_leader_changes_total", "kv_fast_failovers_total"];
const STALL_MS_MAX: f64 = 100.0;

/// One number of every node.
async fn everywhere(cluster: &Cluster, name: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    for node in ALL {
        numbers.push(metric(cluster, node, name).await);
    }
    numbers
}

#[tokio::test]
async fn a_saturating_minute_has_no_election_and_no_stall() {
    let cluster = Cluster::start(3).await;
    let term = async || cluster.client().status().await.unwrap().term;
    let first = term().await;
    let mut before = Vec::new();
    for name in QUIET {
        before.push(everywhere(&cluster, name).await);
    }
    let arguments = [
        "bench",
        "kv",
        "--clients",
        CLIENTS,
        "--seconds",
        SECONDS,
        "--json",
    ];
    let report: Value = cluster.run(&arguments).await.json();
    say(&format!("{report}"));
    for (name, before) in QUIET.into_iter().zip(before) {
        assert_eq!(
            everywhere(&cluster, name).await,
            before,
            "{name} changed under load"
        );
    }
    assert_eq!(
        report["errors"],
        Value::Object(serde_json::Map::new()),
        "{report}"
    );
    assert_eq!(term().await, first, "somebody campaigned under load");
    let operations = report["operations"].as_u64().unwrap();
    let syncs = everywhere(&cluster, "kv_log_fsyncs_total").await;
    say(&format!("{operations} writes, syncs by node: {syncs:?}"));
    assert!(
        syncs.iter().all(|syncs| syncs * 4 < operations),
        "{syncs:?} syncs for {operations} writes"
    );
    let stall = report["stall_ms"].as_f64().unwrap();
    assert!(stall < STALL_MS_MAX, "nobody was answered for {stall} ms");
}

const KEYS: u32 = 100_000;
const PUTS: Order = Order::puts(4, KEYS);
/// Rounds of puts whose versions are then given up, some hundred thousand of them.
const ROUNDS: usize = 4;
/// Of the puts without it. With a search for each version that is given up it was a third.
const WHILE_COLLECTING_PERCENT: u64 = 55;

#[tokio::test]
async fn giving_up_history_leaves_most_of_the_machine_to_the_clients() {
    let cluster = Cluster::start(3).await;
    Order::fill(KEYS).drive(&cluster).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(done(&PUTS.drive(&cluster).await));
    }
    rounds.sort_unstable();
    let (usual, versions) = (rounds[ROUNDS / 2], rounds.iter().sum::<u64>());
    let client = cluster.client();
    client.compact(client.revision().await.unwrap()).await.unwrap();
    let meanwhile = done(&PUTS.drive(&cluster).await);
    say(&format!(
        "{usual} puts in {} s, {meanwhile} while {versions} versions are removed",
        PUTS.seconds
    ));
    assert!(
        meanwhile * 100 >= usual * WHILE_COLLECTING_PERCENT,
        "{meanwhile} of {usual}"
    );
}
