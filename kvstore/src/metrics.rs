//! What a node counts about itself, one registry per node so that several can live in one process.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use service::metrics::Metrics;

use crate::raft::log::Pace;

pub struct NodeMetrics {
    pub registry: Metrics,
    pub commands: IntCounter,
    pub proposals: IntCounter,
    pub proposal_commands: Histogram,
    pub commit_seconds: Histogram,
    pub apply_seconds: Histogram,
    pub log_syncs: IntCounter,
    pub log_sync_seconds: Histogram,
    pub log_sync_entries: Histogram,
    pub log_pace: Pace,
    pub health: HealthMetrics,
    pub elections: IntCounter,
    pub failovers: IntCounter,
    pub term: IntGauge,
    pub is_leader: IntGauge,
    pub applied_index: IntGauge,
    pub revision: IntGauge,
    pub compacted_revision: IntGauge,
    pub keys: IntGauge,
    pub watchers: IntGauge,
    pub events_delivered: IntCounter,
    pub leases: IntGauge,
    pub bytes: BytesMetrics,
    pub follower_lag: IntGaugeVec,
    pub mirrors: MirrorMetrics,
    pub read_index_rounds: IntCounter,
    pub requests: IntCounterVec,
    pub snapshots: IntCounterVec,
    pub unknown_outcomes: IntCounter,
}

pub struct MirrorMetrics {
    pub degraded: IntGauge,
    pub lag: IntGaugeVec,
}

impl MirrorMetrics {
    fn new(registry: &Metrics) -> Self {
        Self {
            degraded: registry.gauge(
                "kv_mirrors_degraded",
                "Synchronous mirrors that no write waits for, since they are lost or have to catch up",
            ),
            lag: registry.gauges(
                "kv_mirror_lag_revisions",
                "Revisions that a mirror has not acknowledged, on the leader",
                &["mirror"],
            ),
        }
    }
}

/// What things take up.
pub struct BytesMetrics {
    pub answers: IntGauge,
    pub records_cache: IntGauge,
    pub db: IntGauge,
}

impl BytesMetrics {
    fn new(registry: &Metrics) -> Self {
        Self {
            answers: registry.gauge(
                "kv_kept_answers_bytes",
                "Bytes of answers kept under idempotency keys",
            ),
            records_cache: registry.gauge(
                "kv_records_cache_bytes",
                "Memory of records read or written lately",
            ),
            db: registry.gauge("kv_db_bytes", "Bytes on disk"),
        }
    }
}

/// What comes of looking after disks and states.
pub struct HealthMetrics {
    pub slow_disk_handovers: IntCounter,
    pub disagreeing: IntGauge,
}

impl HealthMetrics {
    fn new(registry: &Metrics) -> Self {
        Self {
            slow_disk_handovers: registry.counter(
                "kv_slow_disk_handovers_total",
                "Times this node let another lead since its own disk was slow",
            ),
            disagreeing: registry.gauge(
                "kv_members_disagreeing",
                "1 while this node sees a member whose state differs",
            ),
        }
    }
}

/// How many of something stood in one batch.
const BATCH_BUCKETS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];

impl NodeMetrics {
    pub fn new() -> Self {
        Self::in_registry(Metrics::new())
    }

    fn in_registry(registry: Metrics) -> Self {
        let r = &registry;
        Self {
            commands: r.counter(
                "kv_commands_total",
                "Commands of clients, proposed or forwarded here",
            ),
            proposals: r.counter(
                "kv_proposals_total",
                "Log entries that this node proposed as leader",
            ),
            proposal_commands: r.histogram(
                "kv_proposal_commands",
                "Commands in one log entry",
                &BATCH_BUCKETS,
            ),
            commit_seconds: r.latency("kv_commit_seconds", "From proposal to answer, on the leader"),
            apply_seconds: r.latency("kv_apply_seconds", "Applying one batch of committed entries"),
            log_syncs: r.counter("kv_log_fsyncs_total", "Synced writes of the log"),
            log_sync_seconds: r.latency("kv_log_fsync_seconds", "One synced write of the log"),
            log_sync_entries: r.histogram(
                "kv_log_fsync_entries",
                "Log entries under one fsync",
                &BATCH_BUCKETS,
            ),
            log_pace: Pace::default(),
            health: HealthMetrics::new(r),
            elections: r.counter(
                "kv_leader_changes_total",
                "Changes of leader that this node has seen",
            ),
            failovers: r.counter(
                "kv_fast_failovers_total",
                "Elections begun as the leader was gone",
            ),
            term: r.gauge("kv_term", "Raft term"),
            is_leader: r.gauge("kv_is_leader", "1 on the leader"),
            applied_index: r.gauge("kv_applied_index", "Last log entry applied"),
            revision: r.gauge("kv_revision", "Revision of the store on this node"),
            compacted_revision: r.gauge("kv_compacted_revision", "Oldest revision that can be read"),
            keys: r.gauge("kv_keys", "Live keys"),
            watchers: r.gauge("kv_watchers", "Open watches on this node"),
            events_delivered: r.counter("kv_watch_events_total", "Events written to watchers"),
            leases: r.gauge("kv_leases", "Live leases"),
            bytes: BytesMetrics::new(r),
            follower_lag: r.gauges(
                "kv_follower_lag_entries",
                "Entries that a follower is behind, on the leader",
                &["member"],
            ),
            mirrors: MirrorMetrics::new(r),
            read_index_rounds: r.counter("kv_read_index_total", "Read indexes asked for"),
            requests: r.counters(
                "kv_requests_total",
                "Requests by route and status class",
                &["route", "status"],
            ),
            snapshots: r.counters(
                "kv_snapshots_total",
                "Snapshots built, sent, installed; backups made by themselves, and failed",
                &["what"],
            ),
            unknown_outcomes: r.counter("kv_unknown_outcomes_total", "Writes whose fate is not known"),
            registry,
        }
    }

    pub fn log_synced(&self, entries: usize, took: Duration) {
        self.log_pace.end(took);
        self.log_syncs.inc();
        self.log_sync_seconds.observe(took.as_secs_f64());
        if entries > 0 {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a batch has far fewer entries than 2^52"
            )]
            self.log_sync_entries.observe(entries as f64);
        }
    }
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self::new()
    }
}
