//! Sudden death: of the leader, and of all nodes at once.
//! Invariant: nothing acknowledged is lost, and nothing is done twice, whatever was repeated meanwhile.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, lives, signal, wait_until};
use crate::load::{Load, Plan, metric, say, verify};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
/// What an election takes at most, and as much again for a machine that runs other tests beside this one. The shortcut
/// takes a twentieth of it.
const GAP_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_leader_is_killed() {
    kill_leaders(&Cluster::start(3).await, 2).await;
}

/// Without the shortcut for a leader whose process is gone, its silence must be enough.
#[tokio::test]
async fn a_killed_leader_is_replaced_in_time_without_the_shortcut() {
    let cluster = Cluster::with(3, |config| config.store.fast_failover = false);
    cluster.up().await;
    kill_leaders(&cluster, 2).await;
    for name in ALL {
        assert_eq!(metric(&cluster, name, "kv_fast_failovers_total").await, 0);
    }
}

/// Who says nothing keeps no member out, and an election takes no longer for it.
#[tokio::test]
async fn strangers_at_the_peer_ports_do_not_hold_up_an_election() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut strangers = Vec::new();
    for node in &cluster.config.nodes {
        for _ in 0..270 {
            if node.name() != leader {
                strangers.push(std::net::TcpStream::connect(&node.peer).unwrap());
            }
        }
    }
    let held = Instant::now();
    kill_leaders(&cluster, 1).await;
    drop(strangers);
    say(&format!(
        "strangers were held for {:?} and a leader was found",
        held.elapsed()
    ));
}

pub(crate) async fn kill_leaders(cluster: &Cluster, kills: usize) {
    let load = Load::start(cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    for _ in 0..kills {
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
    verify(cluster, &ALL, load.stop().await).await;
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
