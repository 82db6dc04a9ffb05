//! What to follow, and from where.
//! Invariant: a revision that a node told makes no number that there is not, however large it is.
//! It must not know how it is followed.

use crate::path::Target;
use crate::wire::Revision;
use crate::wire::txn::Selector;
use tokio::time::Duration;

/// The store sends `progress` at least every 5 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// What to follow, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    pub selector: Selector,
    /// The first revision to deliver; `None` begins at the next write.
    pub from: Option<Revision>,
    /// Also tell what each key was before.
    pub prev: bool,
    /// Also tell leases and kept answers; for who may read all keys.
    pub aside: bool,
    /// A connection that is silent for longer is given up for another.
    pub silence_max: Duration,
    /// How soon the store tells of revisions that changed nothing here; `None` leaves it to the store.
    pub progress: Option<Duration>,
}

impl WatchRequest {
    pub fn key(key: impl Into<String>) -> Self {
        Self::new(Selector::Key(key.into()))
    }

    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::new(Selector::Prefix(prefix.into()))
    }

    fn new(selector: Selector) -> Self {
        Self {
            selector,
            from: None,
            prev: false,
            aside: false,
            silence_max: SILENCE_MAX,
            progress: None,
        }
    }

    #[must_use]
    pub fn from(mut self, revision: Revision) -> Self {
        self.from = Some(revision);
        self
    }

    /// Delivers what comes after this revision. Of the last that there can be nothing does, whoever told it.
    #[must_use]
    pub fn after(self, revision: Revision) -> Self {
        self.from(revision.saturating_add(1))
    }

    /// Asks to be told of revisions that changed nothing here after this long, a millisecond at least.
    #[must_use]
    pub fn progress(mut self, progress: Duration) -> Self {
        self.progress = Some(progress);
        self
    }

    #[must_use]
    pub fn prev(mut self) -> Self {
        self.prev = true;
        self
    }

    /// Asks for what a copy needs beside the keys: their leases, and the answers kept for idempotency keys.
    #[must_use]
    pub fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// The route, so that what comes next is what follows this revision.
    pub(super) fn target(&self, position: Revision) -> String {
        let target = Target::new("/v1/watch");
        let target = match &self.selector {
            Selector::Key(key) => target.query("key", key),
            Selector::Prefix(prefix) => target.query("prefix", prefix),
        };
        let target = target
            .query("from", &position.saturating_add(1).to_string())
            .flag("prev", self.prev)
            .flag("aside", self.aside)
            .query_if("progress_ms", self.progress.map(|progress| progress.as_millis()));
        target.into_string()
    }
}
