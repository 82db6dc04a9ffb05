//! When a snapshot is taken, and what of the log is given up behind it.
//!
//! openraft keeps so many entries behind a snapshot, however large they are. Here the log is bounded in bytes too, and a
//! full disk keeps nothing that a snapshot stands for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use service::config::{LimitsConfig, StoreConfig};

use super::Upkeep;
use crate::raft::view::{self, RaftView};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While a member lacks entries that are to be given up, they are kept up to so many times as long: it may be on its way.
const PATIENCE: u64 = 3;
/// Between two snapshots that are taken only because the disk is full.
const FULL_REST: Duration = Duration::from_mins(1);

/// Snapshots behind which entries may still be in the log: their last entry, and the bytes applied when they came.
#[derive(Default)]
struct Behind(VecDeque<(u64, u64)>);

impl Behind {
    /// What the log had from before the node was started counts from its beginning.
    fn at_start(snapshot: Option<u64>) -> Self {
        Self(snapshot.map(|index| (index, 0)).into_iter().collect())
    }

    fn note(&mut self, snapshot: Option<u64>, applied_bytes: u64) {
        let Some(index) = snapshot else { return };
        if self.0.back().is_none_or(|(newest, _)| index > *newest) {
            self.0.push_back((index, applied_bytes));
        }
    }

    /// The newest snapshot since which more was applied than is to be kept, once.
    fn give_up(&mut self, applied_bytes: u64, keep: impl Fn(u64) -> u64) -> Option<u64> {
        let mut upto = None;
        while let Some((index, at)) = self.0.front()
            && applied_bytes - at >= keep(*index)
        {
            upto = Some(*index);
            self.0.pop_front();
        }
        upto
    }
}

impl Upkeep {
    pub(super) async fn snapshot_when_due(self: Arc<Self>, store: StoreConfig, limits: LimitsConfig) {
        let room = limits.disk_free_bytes_min / 2;
        let mut behind = Behind::at_start(view::view(&self.desk.raft).snapshot);
        let mut full_at = None::<Instant>;
        while self.pause(LOOK_EVERY).await {
            let view = view::view(&self.desk.raft);
            let machine = &self.desk.machine;
            let applied_bytes = machine.applied_bytes.load(Ordering::Relaxed);
            let bytes = applied_bytes.saturating_sub(machine.snapshot_bytes.load(Ordering::Relaxed));
            let is_full = self.desk.disk_full.load(Ordering::Relaxed);
            let mut due = is_due(&view, bytes, &store);
            // One that finds no room at all would end the node.
            let has_some = super::free_bytes(&self.folder).is_ok_and(|free| free >= room);
            if is_full && has_some && full_at.is_none_or(|at| at.elapsed() > FULL_REST) {
                (due, full_at) = (true, Some(Instant::now()));
            }
            if due && applied_since(&view) > 0 {
                self.desk.raft.trigger().snapshot().await.ok();
            }
            behind.note(view.snapshot, applied_bytes);
            let keep = |upto| match (is_full, is_lacking(&view, upto)) {
                (true, _) => 0,
                (false, true) => store.log_keep_bytes.saturating_mul(PATIENCE),
                (false, false) => store.log_keep_bytes,
            };
            if let Some(upto) = behind.give_up(applied_bytes, keep) {
                tracing::debug!(
                    raft.index = upto,
                    "the log is given up as far as this snapshot stands for it"
                );
                self.desk.raft.trigger().purge_log(upto).await.ok();
            }
        }
    }
}

fn applied_since(view: &RaftView) -> u64 {
    let (applied, snapshot) = (view.applied.unwrap_or(0), view.snapshot.unwrap_or(0));
    applied.saturating_sub(snapshot)
}

/// Because so much was applied since the last one, or because that and the log leave a gap, which nobody else could be
/// brought over: a log whose end was damaged begins anew behind the state.
fn is_due(view: &RaftView, bytes: u64, store: &StoreConfig) -> bool {
    view.purged > view.snapshot
        || applied_since(view) >= store.snapshot_log_entries
        || bytes >= store.snapshot_log_bytes
}

/// Whether some member would need a snapshot if the log up to this entry were given up. Only a leader knows.
fn is_lacking(view: &RaftView, upto: u64) -> bool {
    let others = view.members.keys().filter(|id| **id != view.me);
    view.is_leader()
        && others
            .into_iter()
            .any(|id| view.matched.get(id).is_none_or(|matched| *matched < upto))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::raft::view::Standing;

    #[test]
    fn a_gap_between_the_snapshot_and_the_log_is_closed_at_once() {
        let view = |snapshot, purged| RaftView {
            me: 1,
            term: 2,
            leader: Some(2),
            state: Standing::Follower,
            last_log: Some(90),
            committed: Some(90),
            applied: Some(90),
            snapshot,
            purged,
            members: BTreeMap::new(),
            voters: vec![1, 2, 3],
            joint: false,
            members_committed: true,
            matched: BTreeMap::new(),
            majority_silent: None,
        };
        let store = StoreConfig::default();
        for (snapshot, purged, due) in [
            (None, None, false),
            (Some(40), None, false),
            (Some(40), Some(40), false),
            (Some(40), Some(79), true),
            (None, Some(79), true),
        ] {
            assert_eq!(
                is_due(&view(snapshot, purged), 0, &store),
                due,
                "{snapshot:?} {purged:?}"
            );
        }
        let many = view(None, None);
        assert!(is_due(&many, store.snapshot_log_bytes, &store));
    }

    #[test]
    fn what_was_there_at_the_start_is_given_up_too() {
        assert_eq!(Behind::at_start(None).give_up(100, |_| 0), None);
        // 90 bytes before the snapshot, and 10 applied since.
        let mut behind = Behind::at_start(Some(5));
        behind.note(Some(5), 95);
        assert_eq!(behind.give_up(99, |_| 100), None);
        assert_eq!(behind.give_up(100, |_| 100), Some(5));
    }

    #[test]
    fn what_is_given_up_leaves_so_many_bytes() {
        let mut behind = Behind::default();
        behind.note(None, 0);
        for (index, bytes) in [(10, 100), (10, 150), (20, 200), (30, 300)] {
            behind.note(Some(index), bytes);
        }
        assert_eq!(behind.give_up(199, |_| 100), None);
        assert_eq!(behind.give_up(200, |_| 100), Some(10), "100 bytes since it came");
        assert_eq!(behind.give_up(299, |_| 100), None, "each once");
        // Somebody has the log up to 20, and is waited for beyond.
        let patient = |upto| if upto <= 20 { 100 } else { 300 };
        assert_eq!(behind.give_up(500, patient), Some(20));
        assert_eq!(behind.give_up(500, |_| 100), Some(30));
        behind.note(Some(40), 500);
        assert_eq!(behind.give_up(500, |_| 0), Some(40), "a full disk keeps nothing");
        assert_eq!(behind.give_up(900, |_| 0), None);
    }
}
