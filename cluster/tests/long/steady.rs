//! A minute at full load, in which nothing goes wrong: then nothing may happen either.
//! Invariant: no election without a cause, no stall, and many writes share one sync.

use serde_json::Value;

use crate::ALL;
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
