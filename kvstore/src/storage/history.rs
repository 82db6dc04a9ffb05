//! Reads of the past, replay of events, and the removal of history that compaction gave up.
//!
//! Invariant: at a revision not older than `compacted` (or a pin) every read finds what was alive then;
//! removal keeps, for each key, the newest version at or before the floor, unless it is a deletion.

use std::ops::ControlFlow;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions, WriteBatch};

use super::keys;
use super::machine_db::{
    EVENTS, HEADS, META, MachineDb, VERSIONS, decode, decode_record, to_bytes, without_wal,
};
use crate::command::Record;
use crate::machine::state::{Event, Head, State};

/// Events looked at before the collector writes what it found.
const COLLECT_STEP: usize = 1000;

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

type Visit<'v> = &'v mut dyn FnMut(Bytes, Record) -> ControlFlow<()>;

impl MachineDb {
    /// The key as it was at `revision`.
    pub(crate) fn record_at(&self, key: &[u8], revision: u64) -> Option<Record> {
        let group = keys::version_group(key);
        let mut cursor = self.db.raw_iterator_cf(self.table(VERSIONS));
        cursor.seek(keys::version(key, revision));
        let found = cursor
            .item()
            .filter(|(at, _)| at.starts_with(&group))
            .map(|(_, value)| decode_record(value));
        self.intact(cursor.status());
        found.filter(|record| !record.is_tombstone())
    }

    /// Visits the live keys of one consistent present; answers the revision it is of.
    pub(crate) fn visit_present(&self, span: &Span, visit: Visit<'_>) -> u64 {
        let present = self.db.snapshot();
        let state = self.intact(present.get_cf(self.table(META), b"state"));
        let revision = state.map_or(0, |bytes| decode::<State>(&bytes).revision);
        let (mut options, mut values) = (ReadOptions::default(), ReadOptions::default());
        options.set_snapshot(&present);
        values.set_snapshot(&present);
        let mut cursor = self.db.raw_iterator_cf_opt(self.table(HEADS), options);
        match span.direction {
            Direction::Ascending => cursor.seek(&span.from),
            Direction::Descending => seek_before(&mut cursor, span.to.as_deref()),
        }
        while let Some((key, value)) = cursor.item() {
            let outside = match span.direction {
                Direction::Ascending => span.to.as_deref().is_some_and(|to| key >= to),
                Direction::Descending => key < span.from.as_slice(),
            };
            if outside {
                break;
            }
            let head: Head = decode(value);
            let at = keys::version(key, head.modified);
            let version = self.intact(self.db.get_pinned_cf_opt(self.table(VERSIONS), at, &values));
            let record = decode_record(&version.expect("compaction keeps the newest version of a live key"));
            if visit(to_bytes(key), record).is_break() {
                break;
            }
            step(&mut cursor, span.direction);
        }
        self.intact(cursor.status());
        revision
    }

    /// Visits the keys that were alive at `revision`.
    pub(crate) fn visit_past(&self, span: &Span, revision: u64, visit: Visit<'_>) {
        let mut cursor = self.db.raw_iterator_cf(self.table(VERSIONS));
        match span.direction {
            Direction::Ascending => cursor.seek(keys::version_floor(&span.from)),
            Direction::Descending => seek_before(
                &mut cursor,
                span.to.as_deref().map(keys::version_floor).as_deref(),
            ),
        }
        while let Some((key, _)) = cursor.key().and_then(keys::parse_version) {
            let outside = match span.direction {
                Direction::Ascending => span.to.as_deref().is_some_and(|to| key.as_ref() >= to),
                Direction::Descending => key.as_ref() < span.from.as_slice(),
            };
            if outside {
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

    /// Whole revisions from `from` on, until `bytes_max` are gathered; empty when there are none yet.
    pub(crate) fn events_from(&self, from: u64, upto: u64, bytes_max: usize) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut cursor = self.db.raw_iterator_cf(self.table(EVENTS));
        // The batch that holds `from` may begin before it.
        cursor.seek_for_prev(keys::events(from));
        if !cursor.valid() {
            cursor.seek_to_first();
        }
        'batches: while let Some((_, row)) = cursor.item() {
            for (revision, key) in changes(row).into_iter().filter(|(revision, _)| *revision >= from) {
                let whole = events.last().is_some_and(|last| last.record.modified < revision);
                if revision > upto || (whole && bytes >= bytes_max) {
                    break 'batches;
                }
                let at = keys::version(&key, revision);
                let version = self.intact(self.db.get_pinned_cf(self.table(VERSIONS), at));
                // Collected meanwhile: the caller looks at the floor again before it hands anything out.
                let Some(version) = version else { break 'batches };
                bytes += key.len() + version.len();
                events.push(Event {
                    key,
                    record: decode_record(&version),
                });
            }
            cursor.next();
        }
        self.intact(cursor.status());
        events
    }

    /// Removes, for one step's worth of events, the versions that no read at or after `floor` needs.
    /// Answers whether there is more to do.
    pub(crate) fn collect_step(&self, floor: u64) -> Result<bool, rocksdb::Error> {
        let mut batch = WriteBatch::default();
        let collected = self.collected();
        let (mut reached, mut looked_at) = (collected, 0);
        let mut cursor = self.db.raw_iterator_cf(self.table(EVENTS));
        cursor.seek_for_prev(keys::events(collected + 1));
        if !cursor.valid() {
            cursor.seek_to_first();
        }
        while let Some((at, row)) = cursor.item().filter(|_| looked_at < COLLECT_STEP) {
            let rows = changes(row);
            for (revision, key) in rows
                .iter()
                .filter(|(revision, _)| *revision > collected && *revision <= floor)
            {
                self.drop_superseded(&mut batch, key, *revision);
                (reached, looked_at) = (*revision, looked_at + 1);
            }
            if rows.last().is_some_and(|(last, _)| *last > floor) {
                break;
            }
            batch.delete_cf(self.table(EVENTS), at);
            cursor.next();
        }
        cursor.status()?;
        let more = looked_at >= COLLECT_STEP && reached < floor;
        self.put_collected(&mut batch, if more { reached } else { floor });
        self.db.write_opt(batch, &without_wal())?;
        Ok(more)
    }

    /// A change at `revision` made the version before it unreadable from the floor on; a deletion is
    /// not needed itself either. Each event costs one seek, however long the key's history is.
    fn drop_superseded(&self, batch: &mut WriteBatch, key: &[u8], revision: u64) {
        let group = keys::version_group(key);
        let versions = self.table(VERSIONS);
        let mut cursor = self.db.raw_iterator_cf(versions);
        cursor.seek(keys::version(key, revision));
        if let Some((at, value)) = cursor.item().filter(|(at, _)| at.starts_with(&group))
            && decode_record(value).is_tombstone()
        {
            batch.delete_cf(versions, at);
        }
        self.intact(cursor.status());
        cursor.seek(keys::version(key, revision - 1));
        if let Some(at) = cursor.key().filter(|at| at.starts_with(&group)) {
            batch.delete_cf(versions, at);
        }
        self.intact(cursor.status());
    }
}

/// What one row of events holds: revisions and keys, in order.
fn changes(row: &[u8]) -> Vec<(u64, Bytes)> {
    decode(row)
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
