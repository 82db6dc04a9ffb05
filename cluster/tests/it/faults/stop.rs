//! A leader that is asked to stop hands over first.
//! Invariant: clients see no failure, and hardly a pause.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::load::{Load, Plan, say, verify};

/// The benchmark holds the store to 50 ms; here the machine may be busy with other tests.
const GAP_MAX: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_leader_that_is_asked_to_stop_fails_no_request() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let asked = Instant::now();
        cluster.term(&leader).await;
        assert_eq!(cluster.state(&leader).await, "stopped");
        load.progress(Instant::now(), 100).await;
        gaps.push(load.longest_gap(asked));
        assert_ne!(cluster.leader().await, leader);
        cluster.start_node(&leader).await;
        cluster.wait_for_state(&leader, "running").await;
        load.progress(Instant::now(), 100).await;
    }
    say(&format!(
        "no writes for {gaps:?} after the leader was asked to stop"
    ));
    let book = load.stop().await;
    assert_eq!(book.failed(), 0, "{}", book.summary());
    verify(&cluster, &["n1", "n2", "n3"], book).await;
    // One of three may meet a hiccup of the machine.
    gaps.sort();
    assert!(gaps[1] < GAP_MAX, "no writes for {gaps:?}");
}
