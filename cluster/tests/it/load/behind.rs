//! Leaving a member behind for so long that only a snapshot brings it back.
//! Invariant: that a snapshot was installed is seen, not assumed.

use std::time::Duration;

use super::verify::metric;
use super::writers::Plan;
use crate::harness::{Cluster, wait_until};

const INSTALLED: &str = r#"kv_snapshots_total{what="installed"}"#;
/// More than the leader keeps, with what is asked for below.
const BEHIND: u64 = 1500;

impl Plan {
    /// Few writers without a pause, since the commands of many share an entry.
    pub(crate) fn many_entries() -> Self {
        Self {
            writers: 3,
            adders: 1,
            pause: Duration::ZERO,
            ..Self::default()
        }
    }
}

/// A cluster that takes snapshots often and keeps little of its log.
pub(crate) async fn short_log() -> Cluster {
    let cluster = Cluster::with(3, |config| {
        config.store.snapshot_log_entries = 100;
        config.store.log_keep_entries = 10;
    });
    cluster.up().await;
    cluster
}

/// Waits until the log has moved on by more than a member can be given of it.
pub(crate) async fn moves_on(cluster: &Cluster, awake: &str) {
    let client = cluster.client_of(vec![cluster.address(awake).to_owned()]);
    let last_log = async || client.status().await.unwrap().last_log;
    let begin = last_log().await;
    wait_until("the log moves on", Duration::from_mins(1), async || {
        let now = last_log().await;
        (now > begin + BEHIND)
            .then_some(())
            .ok_or_else(|| format!("{begin} .. {now}"))
    })
    .await;
}

pub(crate) async fn snapshot_installed(cluster: &Cluster, name: &str) {
    wait_until("a snapshot is installed", Duration::from_secs(30), async || {
        let installed = metric(cluster, name, INSTALLED).await;
        (installed > 0).then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}
