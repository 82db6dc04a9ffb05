//! openraft's knobs, from `cluster.toml` and from what measurements showed.

use std::sync::Arc;

use anyhow::Context;
use openraft::{Config as RaftConfig, SnapshotPolicy};
use service::config::Config;

pub fn openraft_config(config: &Config) -> anyhow::Result<Arc<RaftConfig>> {
    let store = &config.store;
    let raft = RaftConfig {
        cluster_name: config.cluster.name.clone(),
        heartbeat_interval: store.heartbeat_ms,
        election_timeout_min: store.election_min_ms,
        election_timeout_max: store.election_max_ms,
        enable_pre_vote: Some(true),
        // A leader that is heard but hears nobody falls silent for so long, so that another can take over.
        quorum_loss_probe_interval: Some(2 * store.election_max_ms + store.election_min_ms),
        // A restarted leader must be elected again: its applied state may lag what it once acknowledged.
        enable_leader_restore: Some(false),
        broadcast_submitted_on_append: Some(true),
        // Snapshots are taken by bytes and entries of our own counting.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: store.log_keep_entries,
        // A short log is meant to stay short; a long one is purged in steps that are worth it.
        purge_batch_size: store.log_keep_entries.clamp(1, 4096),
        // A follower whose disk lost entries gets them again. It does not vote before, so nothing is forgotten.
        allow_log_reversion: Some(true),
        max_payload_entries: 4096,
        replication_lag_threshold: store.log_keep_entries.max(1000),
        install_snapshot_timeout: 600_000,
        backoff: "50ms".into(),
        ..RaftConfig::default()
    };
    raft.validate()
        .map(Arc::new)
        .context("the timings of [store] do not fit together")
}
