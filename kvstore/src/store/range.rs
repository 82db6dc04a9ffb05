//! Ranges and whole-state hashes, on a blocking thread: they may touch many blocks.

use std::ops::ControlFlow;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::read::{ReadError, ReadPoint, check_not_lost, check_past};
use super::{Span, Store};
use crate::command::Record;
use crate::machine::state::record_hash;
use crate::storage::walk::{Walk, Want};

/// What of each row is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    Values,
    Keys,
    CountOnly,
}

#[derive(Clone, Debug)]
pub struct RangeQuery {
    pub span: Span,
    pub rows_max: usize,
    pub bytes_max: usize,
    pub with: With,
    /// A past revision; the present when absent.
    pub at: Option<u64>,
    /// Count all keys of the span, not only those of the page.
    pub count_all: bool,
    /// A live pin protects `at`, also below the compacted revision.
    pub pinned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    pub revision: u64,
    pub rows: Vec<(Bytes, Record)>,
    pub count: Option<u64>,
    pub more: bool,
}

/// Whoever waits for a walk. A long one ends when nobody does any more, for they may ask again meanwhile.
pub struct Asker(oneshot::Sender<()>);

impl Asker {
    /// Who drops the second half waits no longer.
    pub fn new() -> (Self, oneshot::Receiver<()>) {
        let (asker, waiting) = oneshot::channel();
        (Self(asker), waiting)
    }

    pub fn is_waiting(&self) -> bool {
        !self.0.is_closed()
    }
}

struct Gathering {
    query: RangeQuery,
    rows: Vec<(Bytes, Record)>,
    bytes: usize,
    value_bytes: usize,
    count: u64,
    more: bool,
}

impl Gathering {
    fn is_full(&self) -> bool {
        self.more
            || self.rows.len() >= self.query.rows_max
            || (!self.rows.is_empty() && self.bytes >= self.query.bytes_max)
    }

    fn has_room_for(&self, value: &[u8]) -> bool {
        self.rows.is_empty() || self.value_bytes + value.len() <= self.query.bytes_max
    }

    fn wants(&self) -> Want {
        match self.query.with {
            _ if self.is_full() => Want::Count,
            With::CountOnly => Want::Count,
            With::Keys => Want::Heads,
            With::Values => Want::Values,
        }
    }

    fn visit(&mut self, key: &[u8], record: Option<Record>) -> ControlFlow<(), Want> {
        self.count += 1;
        if let Some(mut record) = record.filter(|record| self.has_room_for(&record.value)) {
            if self.query.with == With::Keys {
                record.value = Bytes::new();
            }
            self.value_bytes += record.value.len();
            self.bytes += key.len() + record.value.len() + 64;
            self.rows.push((Bytes::copy_from_slice(key), record));
        } else if self.query.with != With::CountOnly {
            self.more = true;
            if !self.query.count_all {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(self.wants())
    }
}

impl Store {
    pub async fn range(&self, point: ReadPoint, query: RangeQuery) -> Result<RangePage, ReadError> {
        if let Some(at) = query.at.filter(|_| !query.pinned) {
            check_past(&point, at)?;
        } else if let Some(at) = query.at {
            check_not_lost(&point, at)?;
        }
        let (asker, _waiting) = Asker::new();
        let reading = self.inner.tasks.spawn_blocking("range", move || {
            let db = point.generation.db();
            let span = query.span.clone();
            let mut gathering = Gathering {
                query,
                rows: Vec::new(),
                bytes: 0,
                value_bytes: 0,
                count: 0,
                more: false,
            };
            let at = gathering.query.at;
            let walk = Walk {
                span: &span,
                want: gathering.wants(),
                is_awaited: &|| asker.is_waiting(),
            };
            let mut visit = |key: &[u8], record| gathering.visit(key, record);
            let revision = match at {
                Some(revision) => {
                    db.visit_past(walk, revision, &mut visit);
                    revision
                }
                None => db.visit_present(walk, &mut visit),
            };
            let counted = gathering.query.count_all || gathering.query.with == With::CountOnly;
            let count = counted.then_some(gathering.count);
            let page = RangePage {
                revision,
                rows: gathering.rows,
                count,
                more: gathering.more,
            };
            (page, at.filter(|_| !gathering.query.pinned))
        });
        let (page, unprotected) = reading.await.map_err(|_stopped| ReadError::Stopping)?;
        if let Some(revision) = unprotected {
            self.check_still_there(revision)?;
        }
        Ok(page)
    }

    /// How many keys this node has there at present, of which it counts no more than so many.
    pub async fn count(&self, span: Span, upto: u64) -> Result<u64, ReadError> {
        let generation = self.machine().generation();
        let (asker, _waiting) = Asker::new();
        let counting = self.inner.tasks.spawn_blocking("count", move || {
            let walk = Walk {
                span: &span,
                want: Want::Count,
                is_awaited: &|| asker.is_waiting(),
            };
            let mut count = 0;
            generation.db().visit_present(walk, &mut |_key, _record| {
                count += 1;
                if count < upto {
                    ControlFlow::Continue(Want::Count)
                } else {
                    ControlFlow::Break(())
                }
            });
            count
        });
        counting.await.map_err(|_stopped| ReadError::Stopping)
    }

    /// The hash over all keys alive at a revision, and that revision.
    pub async fn hash(&self, point: ReadPoint, at: Option<u64>) -> Result<(u64, u128), ReadError> {
        let state = self.machine().state();
        let Some(revision) = at.filter(|at| *at != state.revision) else {
            return Ok((state.revision, state.hash));
        };
        check_past(&point, revision)?;
        let (asker, _waiting) = Asker::new();
        let reading = self.inner.tasks.spawn_blocking("hash", move || {
            let everything = Span {
                from: Vec::new(),
                to: None,
                direction: super::Direction::Ascending,
            };
            let walk = Walk {
                span: &everything,
                want: Want::Values,
                is_awaited: &|| asker.is_waiting(),
            };
            let mut hash = 0_u128;
            point
                .generation
                .db()
                .visit_past(walk, revision, &mut |key, record| {
                    if let Some(record) = record {
                        hash = hash.wrapping_add(record_hash(key, &record));
                    }
                    ControlFlow::Continue(Want::Values)
                });
            hash
        });
        let hash = reading.await.map_err(|_stopped| ReadError::Stopping)?;
        self.check_still_there(revision)?;
        Ok((revision, hash))
    }
}
