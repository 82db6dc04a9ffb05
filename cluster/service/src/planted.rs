//! Bugs that can be planted, to see that the tests find them: a checker that never failed is not yet a checker.
//! This file names them all; each is a line or two where it belongs, found by its name.
//! Invariant: without the feature `planted`, which no release has, none is ever there and none costs anything.

/// One bug for each promise that a careless change could break. A disk that never syncs needs no planting: the tests of
/// power loss put it under the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledges log entries first, and syncs them only now and then.
    SyncAfterAnswer,
    /// Serves linearizable reads from whatever this node has.
    StaleReads,
    /// Serves bounded reads from whatever this node has, whatever their bound.
    AgeIgnored,
    /// Serves reads of a revision or a later one from whatever this node has, before it has that revision.
    RevisionNotAwaited,
    /// A snapshot that is installed has lost the answers kept for idempotency keys.
    AnswersLostOnSnapshot,
    /// The client repeats a write without its idempotency key.
    RetryWithoutKey,
    /// A node sends a write that has no idempotency key to the next leader, though the last may have done it.
    RepeatsWithoutKey,
    /// What is applied reaches the disk without the log id it was applied up to.
    AppliedIdLate,
    /// A number may come back with another disk.
    NodeIdReused,
    /// Rules of access are asked where a request comes in, and no longer where it is applied.
    RulesAtTheEdge,
    /// Applies another value than was written.
    ValuesDrift,
    /// How often a key was written is counted otherwise by each process.
    MembersCountApart,
    /// A new leader knows nothing of leases that were given before, so that it never ends those that nobody renews.
    LeasesForgotten,
    /// A leader ends leases before their time is over.
    LeasesShort,
    /// A lease is renewed, and ends as if it had not been.
    RenewalsForgotten,
    /// When a leader begins, nobody knows any more which revisions are pinned.
    PinsForgotten,
    /// A watch that goes on after a break leaves out what comes first.
    WatchSkips,
    /// A watch that goes on after a break tells again what came last.
    WatchRepeats,
    /// A transaction that fails half way keeps what it did until then.
    HalfTransactions,
    /// Later pages of a walk show the present, and say that it is the revision of the first one.
    PagesMoveOn,
    /// The store says of its revision what it was some time ago.
    RevisionLags,
    /// What the collector removes is needed by reads of revisions that history still has.
    CollectsTooMuch,
}

#[cfg(not(feature = "planted"))]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use planting::{VARIABLE, is_planted, plant, planted};

#[cfg(feature = "planted")]
mod planting {
    use std::sync::OnceLock;

    use super::Bug;

    /// Names the bug to a process from outside.
    pub const VARIABLE: &str = "MENAGERIE_PLANTED";

    static PLANTED: OnceLock<Option<String>> = OnceLock::new();

    /// The bug of this process, for the processes it starts.
    pub fn planted() -> Option<&'static str> {
        PLANTED.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref()
    }

    pub fn is_planted(bug: Bug) -> bool {
        planted().is_some_and(|name| name == format!("{bug:?}"))
    }

    /// Plants a bug into this process, before anything of it has run.
    pub fn plant(bug: Bug) {
        let first = PLANTED.set(Some(format!("{bug:?}")));
        assert!(first.is_ok(), "a bug is planted before anything asks for it");
    }
}
