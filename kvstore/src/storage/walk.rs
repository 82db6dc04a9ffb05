//! Walks over keys: those that live, and those that lived at a revision that compaction or a pin still protects.
//!
//! To the past there are two ways. Not long after, most keys are as they were: walk the living, and look up only what
//! changed since. Later, walk all versions; that costs as much as all that ever lived in the range, also if it is gone.
//! Invariant: both ways find the same, and neither goes on when nobody waits for it any more.

use std::collections::BTreeSet;
use std::collections::btree_set::IntoIter;
use std::ops::ControlFlow;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions, SnapshotWithThreadMode};

use super::events::changes;
use super::keys;
use super::machine_db::{EVENTS, HEADS, META, MachineDb, VERSIONS, decode, decode_record};
use crate::command::Record;
use crate::machine::state::{Head, State};

/// Revisions since the one that is read, up to which walking the living is taken to be the shorter way.
const RECENT_MAX: u64 = 20_000;
/// One revision may change any number of keys; so many are held in memory.
const CHANGED_MAX: usize = 200_000;

/// Versions that are passed by before one is sought: most keys have few.
const NEAR: u32 = 4;
/// So often in a row the next version was far away before each is got by itself: keys that are written again and again.
const FAR_MAX: u32 = 8;
/// Keys that are passed, living or not, between two looks at whether somebody still waits.
const LOOK_EVERY: u32 = 1024;

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

/// What a visitor wants to see of the keys that come next; the less, the faster it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Values,
    /// Everything but the values, which are empty.
    Heads,
    /// Only that there is a key: no record.
    Count,
}

/// Sees a key, and of its record what was wanted; says what it wants of the next one.
type Visit<'v> = &'v mut dyn FnMut(&[u8], Option<Record>) -> ControlFlow<(), Want>;

/// Where a walk leads, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'w> {
    pub(crate) span: &'w Span,
    /// Of the first key; the visitor says what it wants of the others.
    pub(crate) want: Want,
    /// Whether somebody still waits for the end.
    pub(crate) is_awaited: &'w dyn Fn() -> bool,
}

impl Walk<'_> {
    /// Whether the walk goes on after so many keys.
    fn goes_on(&self, passed: &mut u32) -> bool {
        *passed = passed.wrapping_add(1);
        !passed.is_multiple_of(LOOK_EVERY) || (self.is_awaited)()
    }
}

type Snapshot<'d> = SnapshotWithThreadMode<'d, rocksdb::DB>;

impl MachineDb {
    /// Visits the live keys of one consistent present; answers the revision it is of.
    pub(crate) fn visit_present(&self, walk: Walk<'_>, visit: Visit<'_>) -> u64 {
        let present = self.db.snapshot();
        let revision = self.revision_in(&present);
        self.visit_living(&present, BTreeSet::new(), walk, revision, visit);
        revision
    }

    fn revision_in(&self, present: &Snapshot<'_>) -> u64 {
        let state = self.intact(present.get_cf(self.table(META), b"state"));
        state.map_or(0, |bytes| decode::<State>(&bytes).revision)
    }

    /// Visits the keys that were alive at `revision`.
    pub(crate) fn visit_past(&self, walk: Walk<'_>, revision: u64, visit: Visit<'_>) {
        let present = self.db.snapshot();
        let newest = self.revision_in(&present);
        let recent = newest.saturating_sub(revision) <= RECENT_MAX;
        let changed = if recent {
            self.changed_after(&present, walk.span, revision)
        } else {
            None
        };
        if let Some(changed) = changed {
            self.visit_living(&present, changed, walk, revision, visit);
        } else {
            drop(present);
            self.visit_versions(walk, revision, visit);
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
        walk: Walk<'_>,
        revision: u64,
        visit: Visit<'_>,
    ) {
        let (span, mut want, mut passed) = (walk.span, walk.want, 0);
        let mut changed = Changed {
            keys: changed.into_iter(),
            direction: span.direction,
            next: None,
        };
        changed.advance();
        let cursor_of = |table| {
            let mut options = ReadOptions::default();
            options.set_snapshot(present);
            self.db.raw_iterator_cf_opt(self.table(table), options)
        };
        let mut cursor = cursor_of(HEADS);
        let mut versions = Versions {
            cursor: cursor_of(VERSIONS),
            direction: span.direction,
            far: 0,
        };
        match span.direction {
            Direction::Ascending => cursor.seek(&span.from),
            Direction::Descending => seek_before(&mut cursor, span.to.as_deref()),
        }
        while walk.goes_on(&mut passed) {
            let living = cursor.item().filter(|(key, _)| span.holds(key));
            let (is_passed, answer) = match (living, &changed.next) {
                (None, None) => break,
                (Some((key, value)), next)
                    if next.as_deref().is_none_or(|next| span.comes_first(key, next)) =>
                {
                    let record = match want {
                        Want::Values => Some(self.newest(present, &mut versions, key, value)),
                        Want::Heads => Some(decode::<Head>(value).with_value(Bytes::new())),
                        Want::Count => None,
                    };
                    (true, visit(key, record))
                }
                (living, Some(next)) => {
                    let is_same = living.is_some_and(|(key, _)| key == next.as_ref());
                    let answer = match self.record_at(next, revision) {
                        Some(record) => visit(next, (want != Want::Count).then_some(record)),
                        None => ControlFlow::Continue(want),
                    };
                    changed.advance();
                    (is_same, answer)
                }
                (Some(_), None) => unreachable!("without a next changed key every living one comes first"),
            };
            match answer {
                ControlFlow::Continue(next) => want = next,
                ControlFlow::Break(()) => break,
            }
            if is_passed {
                step(&mut cursor, span.direction);
            }
        }
        self.intact(cursor.status());
    }

    fn newest(&self, present: &Snapshot<'_>, versions: &mut Versions<'_>, key: &[u8], head: &[u8]) -> Record {
        let head = decode::<Head>(head);
        if let Some(row) = self.records.peek(key).filter(|row| row.head == head) {
            return head.with_value(row.value);
        }
        let at = keys::version(key, head.modified);
        let kept = "compaction keeps the newest version of a live key";
        if versions.far >= FAR_MAX {
            let mut options = ReadOptions::default();
            options.set_snapshot(present);
            let version = self.intact(self.db.get_pinned_cf_opt(self.table(VERSIONS), at, &options));
            return decode_record(&version.expect(kept));
        }
        let found = versions.go_to(&at);
        self.intact(versions.cursor.status());
        decode_record(versions.cursor.value().filter(|_| found).expect(kept))
    }

    /// The long way, over all versions of all keys that ever were.
    pub(crate) fn visit_versions(&self, walk: Walk<'_>, revision: u64, visit: Visit<'_>) {
        let (span, mut want, mut passed) = (walk.span, walk.want, 0);
        let mut cursor = self.db.raw_iterator_cf(self.table(VERSIONS));
        match span.direction {
            Direction::Ascending => cursor.seek(keys::version_floor(&span.from)),
            Direction::Descending => seek_before(
                &mut cursor,
                span.to.as_deref().map(keys::version_floor).as_deref(),
            ),
        }
        while let Some((key, _)) = cursor.key().and_then(keys::parse_version) {
            if !span.holds(&key) || !walk.goes_on(&mut passed) {
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
            if let Some(record) = record.filter(|record| !record.is_tombstone()) {
                match visit(&key, (want != Want::Count).then_some(record)) {
                    ControlFlow::Continue(next) => want = next,
                    ControlFlow::Break(()) => break,
                }
            }
            leave_group(&mut cursor, group, span.direction);
        }
        self.intact(cursor.status());
    }
}

/// Versions of keys in the order of the walk, which is nearly the order in which they lie.
struct Versions<'d> {
    cursor: DBRawIterator<'d>,
    direction: Direction,
    /// How often in a row the one that was wanted was not near.
    far: u32,
}

impl Versions<'_> {
    fn go_to(&mut self, at: &[u8]) -> bool {
        for _ in 0..NEAR {
            let passed = match (self.cursor.key(), self.direction) {
                (Some(key), _) if key == at => {
                    self.far = 0;
                    return true;
                }
                (Some(key), Direction::Ascending) => key < at,
                (Some(key), Direction::Descending) => key > at,
                (None, _) => false,
            };
            if !passed {
                break;
            }
            step(&mut self.cursor, self.direction);
        }
        self.far += 1;
        self.cursor.seek(at);
        self.cursor.key() == Some(at)
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
