//! A follower that was away for so long that the log no longer reaches back to it.
//! Invariant: it comes back by a snapshot while writes go on, and then holds what the others hold.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, metric, verify};

const INSTALLED: &str = r#"kv_snapshots_total{what="installed"}"#;
const KEPT: u64 = 10;

#[tokio::test]
async fn a_follower_that_was_away_for_long_comes_back_by_a_snapshot() {
    let cluster = Cluster::with(3, |config| {
        config.store.snapshot_log_entries = 100;
        config.store.log_keep_entries = KEPT;
    });
    cluster.up().await;
    let away = cluster.follower().await;
    let last_log = async |name: &str| {
        let client = cluster.client_of(vec![cluster.address(name).to_owned()]);
        client.status().await.map(|status| status.last_log)
    };
    // Few writers, since the commands of many share an entry.
    let plan = Plan {
        writers: 3,
        adders: 1,
        pause: Duration::ZERO,
        ..Plan::default()
    };
    let load = Load::start(&cluster, plan);
    load.progress(Instant::now(), 200).await;
    cluster.kill(&away).await;
    let leader = cluster.leader().await;
    let begin = last_log(&leader).await.unwrap();
    wait_until("the log moves on", Duration::from_mins(1), async || {
        let now = last_log(&leader).await.unwrap();
        (now > begin + 1500)
            .then_some(())
            .ok_or_else(|| format!("{begin} .. {now}"))
    })
    .await;
    cluster.start_node(&away).await;
    cluster.wait_for_state(&away, "running").await;
    wait_until("a snapshot is installed", Duration::from_secs(30), async || {
        let installed = metric(&cluster, &away, INSTALLED).await;
        (installed > 0).then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &["n1", "n2", "n3"], load.stop().await).await;
}
