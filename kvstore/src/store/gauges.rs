//! Gauges of the metrics, set when somebody asks for them: nothing is counted while nobody looks.

use super::Store;
use crate::raft::desk::Desk;
use crate::raft::view;
use crate::storage::files;

impl Store {
    /// Sets the gauges to how things stand. Counters and histograms are kept where things happen.
    pub fn gauge(&self) {
        let Desk {
            raft,
            machine,
            metrics,
            mirrors: mirror_desk,
            ..
        } = self.inner.desk.as_ref();
        let (view, state) = (view::view(raft), machine.state());
        let set =
            |gauge: &prometheus::IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&metrics.term, view.term);
        set(&metrics.is_leader, u64::from(view.is_leader()));
        set(
            &metrics.applied_index,
            machine.progress_now().applied_end.saturating_sub(1),
        );
        set(&metrics.revision, state.revision);
        set(&metrics.compacted_revision, state.compacted);
        set(&metrics.keys, state.keys);
        set(&metrics.bytes.answers, state.answers_bytes);
        set(&metrics.leases, machine.leases.len() as u64);
        set(
            &metrics.bytes.records_cache,
            machine.generation().db().records.bytes(),
        );
        set(&metrics.bytes.db, files::folder_bytes(&self.inner.folder));
        let mirrors = machine.mirrors();
        let missed = mirrors.synchronous().filter(|mirror| !mirror.is_required());
        set(&metrics.mirrors.degraded, missed.count() as u64);
        metrics.mirrors.lag.reset();
        for mirror in mirror_desk.views().into_iter().filter(|_| view.is_leader()) {
            let lag = metrics.mirrors.lag.with_label_values(&[&mirror.name]);
            set(&lag, mirror.lag.unwrap_or(state.revision));
        }
        metrics.follower_lag.reset();
        for (id, matched) in view.matched.iter().filter(|(id, _)| **id != view.me) {
            let lag = view.last_log.unwrap_or(0).saturating_sub(*matched);
            set(&metrics.follower_lag.with_label_values(&[&id.to_string()]), lag);
        }
    }
}
