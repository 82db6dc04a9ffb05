//! Sudden death: of the leader, and of all nodes at once.
//! Invariant: nothing acknowledged is lost, and nothing is done twice, whatever was repeated meanwhile.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, lives, signal, wait_until};
use crate::load::{Load, Plan, say, verify};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// The benchmark holds the store to 600 ms; here the machine may be busy with other tests.
const GAP_MAX: Duration = Duration::from_secs(3);

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_leader_is_killed() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    for _ in 0..2 {
        let leader = cluster.leader().await;
        let killed = Instant::now();
        cluster.kill(&leader).await;
        load.progress(Instant::now(), 200).await;
        let gap = load.longest_gap(killed);
        say(&format!("no writes for {gap:?} after {leader} was killed"));
        assert!(gap < GAP_MAX, "no writes for {gap:?}");
        let next = cluster.leader().await;
        assert_ne!(next, leader, "a dead node is said to lead");
        cluster.start_node(&leader).await;
        cluster.wait_for_state(&leader, "running").await;
        load.progress(Instant::now(), 100).await;
    }
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    for _ in 0..2 {
        load.progress(Instant::now(), 300).await;
        let mut before = Vec::new();
        for name in ALL {
            before.push(cluster.pid(name).await.unwrap());
        }
        for pid in &before {
            signal(*pid, "KILL");
        }
        // The launcher starts again what died by itself.
        for (name, old) in ALL.into_iter().zip(before) {
            wait_until(
                &format!("{name} lives again"),
                Duration::from_secs(30),
                async || match cluster.pid(name).await {
                    Some(new) if new != old && !lives(old) => Ok(()),
                    seen => Err(format!("{seen:?}")),
                },
            )
            .await;
        }
    }
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &ALL, load.stop().await).await;
}
