//! How far the copy is, for everybody who asks or waits.
//! Invariant: `applied` is never ahead of what the database has on its disk.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) revision: u64,
    /// Of the database, as the store is told.
    pub(crate) incarnation: String,
    /// The cluster that this is a copy of, once it has said at this process's question that it is this one.
    pub(crate) cluster: Option<String>,
    /// Why nothing more can be written, while that is so.
    pub(crate) trouble: Option<String>,
    /// Why the store does not let itself be copied, while that is so.
    pub(crate) refused: Option<String>,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) transactions: u64,
    /// Changes whose values were not what their keys promise.
    pub(crate) shapeless: u64,
    pub(crate) rebuilds: u64,
    /// Rows of the rebuild under way.
    pub(crate) rebuilding: Option<u64>,
}

pub(crate) struct Progress {
    applied: watch::Sender<Applied>,
    came: Mutex<Came>,
}

#[derive(Default)]
struct Came {
    /// The newest revision that came from the store.
    seen: u64,
    /// What came and is not applied yet, and when it came.
    waiting: VecDeque<(u64, Instant)>,
    /// What the store said of this mirror last.
    word: Option<String>,
}

impl Progress {
    pub(crate) fn new(revision: u64, incarnation: String) -> Self {
        Self {
            applied: watch::Sender::new(Applied {
                revision,
                incarnation,
                ..Applied::default()
            }),
            came: Mutex::new(Came {
                seen: revision,
                ..Came::default()
            }),
        }
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().expect("no holder of the progress panics")
    }

    /// A revision has come from the store.
    pub(crate) fn note(&self, revision: u64, arrived: Instant) {
        let mut came = self.came();
        came.seen = came.seen.max(revision);
        came.waiting.push_back((revision, arrived));
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Applied)) {
        self.applied.send_modify(change);
        let revision = self.applied.borrow().revision;
        let mut came = self.came();
        came.seen = came.seen.max(revision);
        while came.waiting.front().is_some_and(|(waits, _)| *waits <= revision) {
            came.waiting.pop_front();
        }
    }

    /// After everything was read anew, perhaps from another cluster.
    pub(crate) fn begin_anew(&self, revision: u64) {
        let mut came = self.came();
        came.seen = revision;
        came.waiting.clear();
    }

    pub(crate) fn now(&self) -> Applied {
        self.applied.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    pub(crate) fn seen(&self) -> u64 {
        self.came().seen
    }

    /// How long the oldest change has waited that came and is not on the disk.
    pub(crate) fn lag(&self) -> Duration {
        let came = self.came();
        came.waiting
            .front()
            .map_or(Duration::ZERO, |(_, arrived)| arrived.elapsed())
    }

    pub(crate) fn set_word(&self, word: Option<String>) {
        self.came().word = word;
    }

    pub(crate) fn word(&self) -> Option<String> {
        self.came().word.clone()
    }
}
