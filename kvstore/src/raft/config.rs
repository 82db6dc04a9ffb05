//! openraft's knobs, from `cluster.toml` and from what measurements showed.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Context;
use openraft::{Config as RaftConfig, SnapshotPolicy};
use service::config::Config;

/// The timings of the node with this number.
pub fn openraft_config(config: &Config, id: u64) -> anyhow::Result<Arc<RaftConfig>> {
    let store = &config.store;
    let election = election_timeouts(config, id);
    let raft = RaftConfig {
        cluster_name: config.cluster.name.clone(),
        heartbeat_interval: store.heartbeat_ms,
        election_timeout_min: election.start,
        election_timeout_max: election.end,
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
        // One for each step of the commit index, so that Raft goes on while one apply takes very long.
        state_machine_channel_size: Some(65_536),
        ..RaftConfig::default()
    };
    raft.validate()
        .map(Arc::new)
        .context("the timings of [store] do not fit together")
}

/// How long this node waits before it stands for election. Each has a part of the whole range for itself, with room
/// between: two that stand within the time that a vote takes split the votes, and all wait once more.
fn election_timeouts(config: &Config, id: u64) -> Range<u64> {
    let (min, max) = (config.store.election_min_ms, config.store.election_max_ms);
    let parts = config.nodes.len().max(1) as u64;
    let mut ids: Vec<u64> = config.nodes.iter().map(|node| node.id).collect();
    ids.sort_unstable();
    // A node that the configuration does not list has joined later.
    let place = ids.binary_search(&id).map_or(id % parts, |place| place as u64);
    let at = |halves: u64| min + max.saturating_sub(min) * halves / (2 * parts);
    let start = at(2 * place);
    start..at(2 * place + 1).max(start + 1)
}

#[cfg(test)]
mod tests {
    use service::config::{NodeConfig, Role};

    use super::*;

    fn of(nodes: u64) -> Config {
        let mut config = Config {
            nodes: Vec::new(),
            ..Config::default()
        };
        for id in 1..=nodes {
            config.nodes.push(NodeConfig {
                id,
                client: format!("127.0.0.1:{}", 7000 + id),
                peer: format!("127.0.0.1:{}", 7100 + id),
                role: Role::Voter,
                client_listen: None,
                peer_listen: None,
            });
        }
        config
    }

    #[test]
    fn no_two_nodes_stand_for_election_at_the_same_time() {
        for nodes in 1..=7 {
            let config = of(nodes);
            let (min, max) = (config.store.election_min_ms, config.store.election_max_ms);
            let mut end = min;
            for id in 1..=nodes {
                let own = election_timeouts(&config, id);
                assert!(
                    own.start >= end && own.start < own.end && own.end <= max,
                    "{own:?} of {nodes}"
                );
                end = own.end + 1;
                openraft_config(&config, id).unwrap();
            }
        }
    }

    #[test]
    fn a_node_that_joined_later_has_a_part_too() {
        let own = election_timeouts(&of(3), 5);
        assert_eq!(own, election_timeouts(&of(3), 3));
    }
}
