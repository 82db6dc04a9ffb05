//! Walks over keys: those that live, and those that lived at a revision that compaction or a pin still protects.
//!
//! To the past there are two ways. Not long after, most keys are as they were: walk the living, and look up only what
//! changed since. Later, walk all versions; that costs as much as all that ever lived in the range, also if it is gone.
//! Invariant: both ways find the same.

use std::collections::BTreeSet;
use std::collections::btree_set::IntoIter;
use std::ops::ControlFlow;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions, SnapshotWithThreadMode};

use super::history::changes;
use super::keys;
use super::machine_db::{EVENTS, HEADS, META, MachineDb, VERSIONS, decode, decode_record, to_bytes};
use crate::command::Record;
use crate::machine::state::{Head, State};

/// Revisions since the one that is read, up to which walking the living is taken to be the shorter way.
const RECENT_MAX: u64 = 20_000;
/// One revision may change any number of keys; so many are held in memory.
const CHANGED_MAX: usize = 200_000;

/// Which end a range is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// Keys from `from` up to but not including `to`.
#[derive(Clone, Debug)]
pub struct Span {
    pub from: Vec<u8>,
    pub to: Option<Vec<u8>>,
    pub direction: Direction,
}

impl Span {
    fn holds(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Whether a walk meets `key` before `other`.
    fn comes_first(&self, key: &[u8], other: &[u8]) -> bool {
        match self.direction {
            Direction::Ascending => key < other,
            Direction::Descending => key > other,
        }
    }
}

type Visit<'v> = &'v mut dyn FnMut(Bytes, Record) -> ControlFlow<()>;

type Snapshot<'d> = SnapshotWithThreadMode<'d, rocksdb::DB>;

impl MachineDb {
    /// Visits the live keys of one consistent present; answers the revision it is of.
    pub(crate) fn visit_present(&self, span: &Span, visit: Visit<'_>) -> u64 {
        let present = self.db.snapshot();
        let revision = self.revision_in(&present);
        self.visit_living(&present, BTreeSet::new(), span, revision, visit);
        revision
    }

    fn revision_in(&self, present: &Snapshot<'_>) -> u64 {
        let state = self.intact(present.get_cf(self.table(META), b"state"));
        state.map_or(0, |bytes| decode::<State>(&bytes).revision)
    }

    /// Visits the keys that were alive at `revision`.
    pub(crate) fn visit_past(&self, span: &Span, revision: u64, visit: Visit<'_>) {
        let present = self.db.snapshot();
        let newest = self.revision_in(&present);
        let recent = newest.saturating_sub(revision) <= RECENT_MAX;
        let changed = if recent {
            self.changed_after(&present, span, revision)
        } else {
            None
        };
        if let Some(changed) = changed {
            self.visit_living(&present, changed, span, revision, visit);
        } else {
            drop(present);
            self.visit_versions(span, revision, visit);
        }
    }

    /// The keys of the span that changed after `revision`, unless they are too many.
    fn changed_after(&self, present: &Snapshot<'_>, span: &Span, revision: u64) -> Option<BTreeSet<Bytes>> {
        let mut changed = BTreeSet::new();
        let mut options = ReadOptions::default();
        options.set_snapshot(present);
        let mut cursor = self.db.raw_iterator_cf_opt(self.table(EVENTS), options);
        // The batch that holds the first of them may begin before it.
        cursor.seek_for_prev(keys::events(revision + 1));
        if !cursor.valid() {
            cursor.seek_to_first();
        }
        while let Some((_, row)) = cursor.item() {
            let later = changes(row).into_iter().filter(|(at, _)| *at > revision);
            changed.extend(later.map(|(_, key)| key).filter(|key| span.holds(key)));
            if changed.len() > CHANGED_MAX {
                return None;
            }
            cursor.next();
        }
        self.intact(cursor.status());
        Some(changed)
    }

    /// What lives in `present`, but for what `changed`, which is as it was at `revision`.
    fn visit_living(
        &self,
        present: &Snapshot<'_>,
        changed: BTreeSet<Bytes>,
        span: &Span,
        revision: u64,
        visit: Visit<'_>,
    ) {
        let mut changed = Changed {
            keys: changed.into_iter(),
            direction: span.direction,
            next: None,
        };
        changed.advance();
        let (mut options, mut values) = (ReadOptions::default(), ReadOptions::default());
        options.set_snapshot(present);
        values.set_snapshot(present);
        let mut cursor = self.db.raw_iterator_cf_opt(self.table(HEADS), options);
        match span.direction {
            Direction::Ascending => cursor.seek(&span.from),
            Direction::Descending => seek_before(&mut cursor, span.to.as_deref()),
        }
        loop {
            let living = cursor.item().filter(|(key, _)| span.holds(key));
            let (key, record) = match (living, &changed.next) {
                (None, None) => break,
                (Some((key, value)), next)
                    if next.as_deref().is_none_or(|next| span.comes_first(key, next)) =>
                {
                    let head: Head = decode(value);
                    let at = keys::version(key, head.modified);
                    let version = self.intact(self.db.get_pinned_cf_opt(self.table(VERSIONS), at, &values));
                    let record =
                        decode_record(&version.expect("compaction keeps the newest version of a live key"));
                    let key = to_bytes(key);
                    step(&mut cursor, span.direction);
                    (key, Some(record))
                }
                (living, Some(next)) => {
                    let (next, is_same) = (next.clone(), living.is_some_and(|(key, _)| key == next.as_ref()));
                    if is_same {
                        step(&mut cursor, span.direction);
                    }
                    changed.advance();
                    let record = self.record_at(&next, revision);
                    (next, record)
                }
                (Some(_), None) => unreachable!("without a next changed key every living one comes first"),
            };
            // The next read would forget that this one failed, and keys would seem to be absent.
            self.intact(cursor.status());
            if let Some(record) = record
                && visit(key, record).is_break()
            {
                break;
            }
        }
        self.intact(cursor.status());
    }

    /// The long way, over all versions of all keys that ever were.
    pub(crate) fn visit_versions(&self, span: &Span, revision: u64, visit: Visit<'_>) {
        let mut cursor = self.db.raw_iterator_cf(self.table(VERSIONS));
        match span.direction {
            Direction::Ascending => cursor.seek(keys::version_floor(&span.from)),
            Direction::Descending => seek_before(
                &mut cursor,
                span.to.as_deref().map(keys::version_floor).as_deref(),
            ),
        }
        while let Some((key, _)) = cursor.key().and_then(keys::parse_version) {
            if !span.holds(&key) {
                break;
            }
            let group = keys::version_group(&key);
            cursor.seek(keys::version(&key, revision));
            let record = cursor
                .item()
                .filter(|(at, _)| at.starts_with(&group))
                .map(|(_, value)| decode_record(value));
            // The next seek would forget that this one failed, and the key would seem to be absent.
            self.intact(cursor.status());
            if let Some(record) = record.filter(|record| !record.is_tombstone())
                && visit(key, record).is_break()
            {
                break;
            }
            leave_group(&mut cursor, group, span.direction);
        }
        self.intact(cursor.status());
    }
}

/// Changed keys in the order of the walk.
struct Changed {
    keys: IntoIter<Bytes>,
    direction: Direction,
    next: Option<Bytes>,
}

impl Changed {
    fn advance(&mut self) {
        self.next = match self.direction {
            Direction::Ascending => self.keys.next(),
            Direction::Descending => self.keys.next_back(),
        };
    }
}

/// Steps over all versions of the key that the cursor has just looked at.
fn leave_group(cursor: &mut DBRawIterator<'_>, group: Vec<u8>, direction: Direction) {
    match direction {
        Direction::Ascending => {
            // Nothing but this key's own versions lies between its group and the group's end mark + 1.
            let mut after = group;
            *after.last_mut().expect("a group ends with its end mark") = 1;
            cursor.seek(after);
        }
        Direction::Descending => seek_before(cursor, Some(&group)),
    }
}

fn step(cursor: &mut DBRawIterator<'_>, direction: Direction) {
    match direction {
        Direction::Ascending => cursor.next(),
        Direction::Descending => cursor.prev(),
    }
}

/// Goes to the last key before `bound`; to the very last when there is no bound.
fn seek_before(cursor: &mut DBRawIterator<'_>, bound: Option<&[u8]>) {
    let Some(bound) = bound else {
        return cursor.seek_to_last();
    };
    cursor.seek_for_prev(bound);
    if cursor.key() == Some(bound) {
        cursor.prev();
    }
}
