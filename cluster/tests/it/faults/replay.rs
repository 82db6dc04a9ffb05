//! What is done again after a restart or under a new leader: entries of the log, and repeats of clients.
//! Invariant: whatever is applied or sent twice takes effect once.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::load::{Load, Plan, equal_everywhere, moves_on, short_log, snapshot_installed};

const ALL: [&str; 3] = ["n1", "n2", "n3"];

#[tokio::test]
async fn a_kept_answer_survives_a_snapshot() {
    repeat_after_a_snapshot().await;
}

/// The member that repeats the answer has it from a snapshot alone.
pub(crate) async fn repeat_after_a_snapshot() {
    let cluster = short_log().await;
    let away = cluster.follower().await;
    cluster.kill(&away).await;
    let once = cluster.client().with_idempotency_key("the-one-addition").unwrap();
    let first = once.add("once", 1, None, None).await.unwrap();
    let load = Load::start(&cluster, Plan::many_entries());
    moves_on(&cluster, &cluster.leader().await).await;
    cluster.start_node(&away).await;
    cluster.wait_for_state(&away, "running").await;
    snapshot_installed(&cluster, &away).await;
    load.progress(Instant::now(), 100).await;
    load.stop().await;
    cluster.run(&["kv", "leader", "--to", &away]).await.ok();
    assert_eq!(
        once.add("once", 1, None, None).await.unwrap(),
        first,
        "the answer was forgotten"
    );
    let stands = cluster.client().get("once").await.unwrap().unwrap();
    assert_eq!(stands.bytes(), "1", "the addition was done again");
    equal_everywhere(&cluster, &ALL).await;
}

#[tokio::test]
async fn what_a_restart_replays_is_applied_once() {
    replay_after_restarts().await;
}

/// Without idempotency keys, so that nothing hides what is applied twice.
pub(crate) async fn replay_after_restarts() {
    const ADDITIONS: usize = 150;
    let cluster = Cluster::with(3, |config| config.store.snapshot_log_entries = 60);
    cluster.up().await;
    for round in 1..=4 {
        let leader = cluster.leader().await;
        for _ in 0..ADDITIONS {
            let add = json!({"then": [{"add": {"key": "sum", "by": 1}}]});
            let answer = cluster
                .request("POST", &leader, "/v1/txn")
                .json(&add)
                .send()
                .await;
            assert!(answer.unwrap().status().is_success());
        }
        // A sudden end leaves what the last snapshot flushed, an orderly one flushes at the end.
        for name in ALL {
            if round % 2 == 0 {
                cluster.kill(name).await;
            } else {
                cluster.term(name).await;
            }
        }
        for name in ALL {
            cluster.start_node(name).await;
        }
        for name in ALL {
            cluster.wait_for_state(name, "running").await;
        }
        for name in ALL {
            let read = cluster.request("GET", name, "/v1/kv/sum").send().await.unwrap();
            let sum: Value = read.json().await.unwrap();
            assert_eq!(sum, round * ADDITIONS, "{name}, after round {round}");
        }
        equal_everywhere(&cluster, &ALL).await;
    }
}
