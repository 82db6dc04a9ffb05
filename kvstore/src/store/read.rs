//! Reads: first the moment that the asked-for level allows, then what was there.

use std::sync::Arc;
use std::time::Duration;

use service::planted::{Bug, is_planted};

use super::{LEADER_WAIT, Store};
use crate::command::Record;
use crate::machine::generation::Generation;
use crate::machine::host::{Machine, Progress};

/// How long a node waits to have applied what a read must see.
const CATCH_UP: Duration = Duration::from_secs(5);

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Sees every write acknowledged before it began, on any node.
    Linearizable,
    /// Whatever this node has.
    Local,
    /// At most this long behind the leader's last confirmed majority.
    Bounded(Duration),
    /// This revision or a later one.
    AtLeast(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader confirmed the read")]
    NoLeader,
    #[error("this node is not as fresh as asked for")]
    Stale,
    #[error("this node has not reached the revision asked for")]
    Behind { present: u64 },
    #[error("the revision has been compacted")]
    Compacted { compacted: u64 },
    /// It lies between the end of a backup and the cluster that began with it.
    #[error("the revision was never this cluster's")]
    NeverHere { first: u64 },
    #[error("the revision lies in the future")]
    FutureRevision { present: u64 },
    #[error("this node is stopping")]
    Stopping,
    #[error("a mirror is gone that does not have what was read")]
    MirrorLost,
}

/// A moment that a read may show.
#[derive(Clone)]
pub struct ReadPoint {
    pub generation: Arc<Generation>,
    pub revision: u64,
    pub compacted: u64,
    /// Up to here it may be shown at once; beyond, every mirror that is waited for must have it.
    pub mirrored: Option<u64>,
}

impl ReadPoint {
    /// Whether the changes from this revision on can still be told, all of them.
    pub fn check_watch(&self, from: u64) -> Result<(), ReadError> {
        let (compacted, first) = (self.compacted, self.generation.gaps.watch_floor());
        // Whoever goes on behind what this names is not to be refused again.
        if first > compacted && from <= first {
            Err(ReadError::NeverHere { first })
        } else if from <= compacted {
            Err(ReadError::Compacted { compacted })
        } else {
            Ok(())
        }
    }
}

/// A key, or its absence, as of `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub record: Option<Record>,
    pub revision: u64,
}

fn present(machine: &Machine) -> ReadPoint {
    // Progress first: the database is at least as far as what was published.
    let Progress {
        revision, compacted, ..
    } = machine.progress_now();
    ReadPoint {
        generation: machine.generation(),
        revision,
        compacted,
        mirrored: None,
    }
}

impl Store {
    /// Waits for a moment that satisfies `level`.
    pub async fn read_point(&self, level: Level) -> Result<ReadPoint, ReadError> {
        let machine = self.machine();
        match level {
            Level::Local => {}
            Level::Linearizable if is_planted(Bug::StaleReads) => {}
            Level::Bounded(_) if is_planted(Bug::AgeIgnored) => {}
            Level::AtLeast(_) if is_planted(Bug::RevisionNotAwaited) => {}
            Level::Linearizable => {
                let moment = self.inner.read_indexes.read_index().await?;
                self.wait_applied(moment.index).await?;
                // The leader may not have applied yet that a mirror is to be waited for; this node has.
                let required = || machine.mirrors().required().next().map(|_| 0);
                let mirrored = moment.mirrored.or_else(required);
                return Ok(ReadPoint {
                    mirrored,
                    ..present(machine)
                });
            }
            Level::Bounded(age) => {
                let fresh = self.inner.read_indexes.confirmed_within(age);
                if fresh.is_none_or(|index| machine.progress_now().applied_end < index) {
                    let patience = age.clamp(Duration::from_millis(50), LEADER_WAIT);
                    let round = tokio::time::timeout(patience, self.inner.read_indexes.read_index());
                    let moment = round.await.ok().and_then(Result::ok).ok_or(ReadError::Stale)?;
                    let applied = tokio::time::timeout(patience, self.wait_applied(moment.index));
                    applied.await.ok().and_then(Result::ok).ok_or(ReadError::Stale)?;
                }
            }
            Level::AtLeast(revision) => self.wait_published(revision).await?,
        }
        Ok(present(machine))
    }

    async fn wait_applied(&self, end: u64) -> Result<(), ReadError> {
        let mut progress = self.machine().progress();
        let reached = progress.wait_for(|progress| progress.applied_end >= end);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::Behind {
                present: self.machine().progress_now().revision,
            }),
        }
    }

    /// Waits until this revision is published, and with it every change of the rules that came before it: the present
    /// that is read may be ahead of that for a moment.
    pub async fn wait_published(&self, revision: u64) -> Result<(), ReadError> {
        let mut progress = self.machine().progress();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        match tokio::time::timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopping),
            Err(_) => Err(ReadError::Behind {
                present: self.machine().progress_now().revision,
            }),
        }
    }

    /// One key at the read point, or at the past revision `at`.
    pub fn get(&self, point: &ReadPoint, key: &[u8], at: Option<u64>) -> Result<Got, ReadError> {
        let db = point.generation.db();
        if let Some(revision) = at {
            check_past(point, revision)?;
            let record = db.record_at(key, revision);
            self.check_still_there(revision)?;
            return Ok(Got { record, revision });
        }
        let mut later = None;
        loop {
            if let Some(got) = self.get_present(later.as_ref().unwrap_or(point), key) {
                return Ok(got);
            }
            // Compaction has passed that moment while it was looked at.
            later = Some(present(self.machine()));
        }
    }

    /// The key as it is now, or its absence at the read point; `None` if nothing can be told of that any more.
    fn get_present(&self, point: &ReadPoint, key: &[u8]) -> Option<Got> {
        let db = point.generation.db();
        // The newest version may be newer than what was published; then it speaks for its own revision.
        if let Some(record) = db.record_now(key) {
            let revision = point.revision.max(record.modified);
            return Some(Got {
                record: Some(record),
                revision,
            });
        }
        // Absent now: it may have been there at the revision that this answer would name.
        let revision = point.revision;
        let record = db.record_at(key, revision);
        self.check_still_there(revision).ok()?;
        Some(Got { record, revision })
    }

    /// Compaction may have passed while the past was read.
    pub(super) fn check_still_there(&self, revision: u64) -> Result<(), ReadError> {
        // Also what is about to be published: the collector may have seen it.
        let machine = self.machine();
        let compacted = machine.progress_now().compacted.max(machine.compacted());
        if revision < compacted {
            Err(ReadError::Compacted { compacted })
        } else {
            Ok(())
        }
    }
}

pub(super) fn check_past(point: &ReadPoint, revision: u64) -> Result<(), ReadError> {
    if revision > point.revision {
        return Err(ReadError::FutureRevision {
            present: point.revision,
        });
    }
    if revision < point.compacted {
        return Err(ReadError::Compacted {
            compacted: point.compacted,
        });
    }
    check_not_lost(point, revision)
}

/// Also for a walk whose pin the backup had.
pub(super) fn check_not_lost(point: &ReadPoint, revision: u64) -> Result<(), ReadError> {
    match point.generation.gaps.behind(revision) {
        Some(first) => Err(ReadError::NeverHere { first }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use service::config::LimitsConfig;

    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::small::{entry, opened};
    use crate::raft::bare::{Bare, calm};
    use crate::raft::types::StoredMembership;

    /// Writes twice, and gives up what was before the first of these.
    fn write_and_compact(machine: &Machine) {
        let put = || Action::Put {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(b"value"),
            lease: 0,
            expect: Expect::Any,
        };
        let revision = machine.state().revision + 1;
        let index = machine.progress_now().applied_end;
        let item = entry(index, 1, [put(), put(), Action::Compact { revision }]);
        machine.apply(vec![item]).unwrap();
    }

    #[test]
    fn a_watch_is_refused_once_and_told_from_where_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = 1_000_000;
        {
            let before = opened(folder.path());
            write_and_compact(&before);
            let membership = serde_json::to_vec(&StoredMembership::default()).unwrap();
            before.generation().db().begin_anew(&membership, first).unwrap();
        }
        let machine = opened(folder.path());
        let point = present(&machine);
        assert_eq!((point.compacted, point.revision), (1, first));
        for from in [1, 2, 3, first] {
            assert_eq!(
                point.check_watch(from),
                Err(ReadError::NeverHere { first }),
                "from {from}"
            );
        }
        assert_eq!(point.check_watch(first + 1), Ok(()));
        // Later it has given up some of its own history.
        write_and_compact(&machine);
        let (point, compacted) = (present(&machine), first + 1);
        for from in [1, first, compacted] {
            assert_eq!(point.check_watch(from), Err(ReadError::Compacted { compacted }));
        }
        assert_eq!(point.check_watch(compacted + 1), Ok(()));
    }

    #[tokio::test]
    async fn a_key_that_was_absent_before_the_floor_is_looked_for_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let node = Box::pin(Bare::start(1, &calm())).await;
        let store = Store::over(&node, &LimitsConfig::default());
        let machine = store.machine();
        let before = present(machine);
        // Meanwhile a snapshot is installed.
        let other = opened(folder.path());
        write_and_compact(&other);
        let incoming = machine.incoming_folder();
        other.generation().db().checkpoint(&incoming).unwrap();
        machine.install(&incoming).unwrap();
        let got = store.get(&before, b"key", None).unwrap();
        let modified = got.record.map(|record| record.modified);
        assert_eq!((modified, got.revision), (Some(2), 2));
        node.end().await;
    }
}
