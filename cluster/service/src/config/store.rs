//! The settings of the store: its nodes, timings and limits.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `check`.

use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Never given to another disk.
    pub id: u64,
    /// `host:port` where clients reach it.
    pub client: String,
    /// `host:port` where the other nodes reach it.
    pub peer: String,
    #[serde(default)]
    pub role: Role,
    /// `host:port` to listen on for clients, where that is not the address they use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_listen: Option<String>,
    /// The same for the other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
}

impl NodeConfig {
    /// Where it listens for clients.
    pub fn listens_to_clients(&self) -> &str {
        self.client_listen.as_ref().unwrap_or(&self.client)
    }

    /// Where it listens for the other nodes.
    pub fn listens_to_peers(&self) -> &str {
        self.peer_listen.as_ref().unwrap_or(&self.peer)
    }

    /// The name of the process: `n1` for node 1.
    pub fn name(&self) -> String {
        format!("n{}", self.id)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    Voter,
    Learner,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
    /// Whether followers act on the closed sockets of a leader whose process died.
    pub fast_failover: bool,
    /// 0 takes as many as there are processors.
    pub worker_threads: usize,
    pub history_max_age_s: u64,
    pub history_bytes_max: u64,
    pub snapshot_log_entries: u64,
    pub snapshot_log_bytes: u64,
    /// Entries kept behind a snapshot for followers that are a little late.
    pub log_keep_entries: u64,
    /// Bytes of entries after which those before an older snapshot are given up, however few they are; a leader waits
    /// for three times as many where a member lacks them.
    pub log_keep_bytes: u64,
    pub flush_every_s: u64,
    pub memtable_mib: usize,
    pub block_cache_mib: usize,
    /// For whole records of keys read or written lately; 0 keeps none.
    pub records_cache_mib: u64,
    /// For the heads (all but the values) of keys written lately.
    pub heads_cache_mib: u64,
    /// How often members compare their states; 0 for never.
    pub agreement_every_s: u64,
    /// A leader whose log takes so long to sync, on average, lets another lead; 0 for never.
    pub slow_disk_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 250,
            fast_failover: true,
            worker_threads: 0,
            history_max_age_s: 3600,
            history_bytes_max: 1 << 30,
            snapshot_log_entries: 100_000,
            snapshot_log_bytes: 256 << 20,
            log_keep_entries: 20_000,
            log_keep_bytes: 1 << 30,
            flush_every_s: 60,
            memtable_mib: 8,
            block_cache_mib: 128,
            records_cache_mib: 512,
            heads_cache_mib: 16,
            agreement_every_s: 5,
            slow_disk_ms: 200,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    pub key_bytes_max: usize,
    pub value_bytes_max: usize,
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    /// By prefixes, in one command and in all that a node has under way; every member gathers them in memory.
    pub delete_keys_max: usize,
    pub range_rows_max: usize,
    pub range_bytes_max: usize,
    /// The last quarter is for tokens that have few.
    pub watchers_max: usize,
    pub watch_buffer_bytes_max: usize,
    pub proposals_bytes_max: usize,
    pub proposals_max: usize,
    pub proposal_age_ms_max: u64,
    pub request_ms_max: u64,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    /// What the remembered answers to idempotency keys may take; the last quarter is for tokens that have few.
    pub answers_bytes_max: usize,
    /// All of them are in the memory of every node; the last quarter is for tokens that have few.
    pub leases_max: usize,
    pub json_depth_max: usize,
    /// Below this much free disk a node refuses writes.
    pub disk_free_bytes_min: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            key_bytes_max: KIB,
            value_bytes_max: MIB,
            request_bytes_max: 4 * MIB,
            txn_ops_max: 128,
            delete_keys_max: 100_000,
            range_rows_max: 10_000,
            range_bytes_max: 4 * MIB,
            watchers_max: 1000,
            watch_buffer_bytes_max: 16 * MIB,
            proposals_bytes_max: 64 * MIB,
            proposals_max: 8192,
            proposal_age_ms_max: 2000,
            request_ms_max: 10_000,
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            answers_bytes_max: 256 * MIB,
            leases_max: 100_000,
            json_depth_max: crate::body::JSON_DEPTH_MAX,
            disk_free_bytes_min: 512 << 20,
        }
    }
}
