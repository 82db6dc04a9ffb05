//! One version of a key, replay of events, and the removal of history that compaction gave up.
//!
//! Invariant: at a revision not older than `compacted` (or a pin) every read finds what was alive then;
//! removal keeps, for each key, the newest version at or before the floor, unless it is a deletion.

use std::ops::ControlFlow;

use rocksdb::WriteBatch;

use super::events::{changes_in_place, changes_with_superseded};
use super::keys;
use super::machine_db::{EVENTS, MachineDb, VERSIONS, decode_record, to_bytes, without_wal};
use crate::command::Record;
use crate::machine::state::{Event, Superseded};

/// Events looked at before the collector writes what it found.
const COLLECT_STEP: usize = 1000;
/// Steps before others get their turn.
const STEPS_AT_ONCE: u32 = 4;

/// Sees the revision and the key of an event, and may read it.
pub(crate) type VisitEvent<'v> = &'v mut dyn FnMut(u64, &[u8], &dyn Fn() -> Option<Event>) -> ControlFlow<()>;

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

    /// Shows the events of the revisions from `from` up to `upto`, in order, until the visitor breaks: revision and key, and
    /// the event itself to who asks, unless that has been collected meanwhile.
    pub(crate) fn visit_events(&self, from: u64, upto: u64, visit: VisitEvent<'_>) {
        let mut cursor = self.db.raw_iterator_cf(self.table(EVENTS));
        // The batch that holds `from` may begin before it.
        cursor.seek_for_prev(keys::events(from));
        if !cursor.valid() {
            cursor.seek_to_first();
        }
        'rows: while let Some((_, row)) = cursor.item() {
            let changes = changes_in_place(row).into_iter();
            for (revision, key) in changes.filter(|(revision, _)| *revision >= from) {
                let event = || {
                    let at = keys::version(key, revision);
                    let version = self.intact(self.db.get_pinned_cf(self.table(VERSIONS), at))?;
                    Some(Event {
                        key: to_bytes(key),
                        record: decode_record(&version),
                    })
                };
                if revision > upto || visit(revision, key, &event).is_break() {
                    break 'rows;
                }
            }
            cursor.next();
        }
        self.intact(cursor.status());
    }

    /// Removes for a while what compaction up to there gave up, unless a live pin still protects it. Answers up to where
    /// all is removed.
    pub(crate) fn collect(&self, compacted: u64) -> Result<u64, rocksdb::Error> {
        if self.collected() >= compacted {
            return Ok(compacted);
        }
        let pinned = self.leases().into_iter().filter_map(|(_, lease)| lease.pin).min();
        let floor = compacted.min(pinned.unwrap_or(u64::MAX));
        for _ in 0..STEPS_AT_ONCE {
            if self.collected() >= floor || !self.collect_step(floor)? {
                break;
            }
        }
        let minutes = self.minutes().into_iter();
        let past = minutes
            .filter(|(_, mark)| mark.revision < floor)
            .map(|(minute, _)| minute);
        self.remove_minutes(&past.collect::<Vec<u64>>())?;
        self.forget_kept_of(floor)?;
        Ok(self.collected())
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
            let changes = changes_with_superseded(row);
            let last = changes.last().map_or(0, |(revision, ..)| *revision);
            let given_up = collected + 1..=floor;
            for (revision, key, superseded) in changes {
                if given_up.contains(&revision) {
                    self.drop_superseded(&mut batch, &key, revision, superseded);
                    (reached, looked_at) = (revision, looked_at + 1);
                }
            }
            if last > floor {
                break;
            }
            batch.delete_cf(self.table(EVENTS), at);
            cursor.next();
        }
        self.intact(cursor.status());
        let more = looked_at >= COLLECT_STEP && reached < floor;
        self.put_collected(&mut batch, if more { reached } else { floor });
        self.noted(self.db.write_opt(batch, &without_wal()))?;
        Ok(more)
    }

    /// A change at `revision` made the version before it unreadable from the floor on; a deletion is
    /// not needed itself either.
    fn drop_superseded(
        &self,
        batch: &mut WriteBatch,
        key: &[u8],
        revision: u64,
        superseded: Option<Superseded>,
    ) {
        let Some(Superseded { before, deleted }) = superseded else {
            return self.find_superseded(batch, key, revision);
        };
        let versions = self.table(VERSIONS);
        if deleted {
            batch.delete_cf(versions, keys::version(key, revision));
        }
        if before > 0 {
            batch.delete_cf(versions, keys::version(key, before));
        }
    }

    /// The same where an older node wrote the events and did not say: a search for each.
    fn find_superseded(&self, batch: &mut WriteBatch, key: &[u8], revision: u64) {
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

#[cfg(test)]
impl MachineDb {
    /// All from this revision on.
    pub(crate) fn events_from(&self, from: u64) -> Vec<Event> {
        let mut events = Vec::new();
        self.visit_events(from, u64::MAX, &mut |_revision, _key, event| {
            events.push(event().expect("it was not collected"));
            ControlFlow::Continue(())
        });
        events
    }

    /// As if a disk had changed what it was given of this table.
    pub(crate) fn flip_a_bit(&self, table: &str) {
        use std::os::unix::fs::FileExt as _;

        self.flush().expect("it is flushed");
        let files = self.db.live_files().expect("it knows its files");
        let mut files = files.iter().filter(|file| file.column_family_name == table);
        let file = files.next().expect("the table has a file");
        let path = self.db.path().join(file.name.trim_start_matches('/'));
        let opened = std::fs::File::options().read(true).write(true).open(path);
        let file = opened.expect("it opens");
        // In its first row.
        let (mut byte, at) = ([0], 10);
        file.read_exact_at(&mut byte, at).expect("it is read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("it is written");
    }
}
