//! Records of keys that were read or written lately, in memory: among very many keys, a get would search all tables
//! for the key's head and then again for its value.
//!
//! Invariant: what is here is what the database says, also of two keys that one batch changes. Its keys are taken out
//! before it is written and put in again afterwards, and whoever reads meanwhile puts in nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::sync::{Cache, GuardResult};

use crate::machine::draft::Effects;
use crate::machine::state::Head;

/// A head, the handles of key and value, their place in the cache, and what their allocations round up.
const ROW_BYTES: u64 = 272;
/// For how large rows the cache plans its own bookkeeping.
const USUAL_BYTES: u64 = 512;

#[derive(Clone)]
pub(super) struct Row {
    pub(super) head: Head,
    pub(super) value: Bytes,
}

#[derive(Clone)]
struct KeyAndRow;

impl quick_cache::Weighter<Vec<u8>, Row> for KeyAndRow {
    fn weight(&self, key: &Vec<u8>, row: &Row) -> u64 {
        ROW_BYTES + (key.len() + row.value.len()) as u64
    }
}

pub(crate) struct Records {
    /// None for a tool, which reads nothing twice.
    rows: Option<Cache<Vec<u8>, Row, KeyAndRow>>,
    /// Whether a batch is between its keys' leaving and their coming back.
    writing: AtomicBool,
}

impl Records {
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        Self {
            rows: (bytes > 0).then(|| Cache::with_weighter(usual, bytes, KeyAndRow)),
            writing: AtomicBool::new(false),
        }
    }

    /// What is at hand, and does not become more likely to stay by being asked for.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Row> {
        self.rows.as_ref()?.peek(key)
    }

    /// What is at hand, or else what `read` finds in the database.
    pub(super) fn get(&self, key: &[u8], read: impl FnOnce() -> Option<Row>) -> Option<Row> {
        let Some(rows) = &self.rows else {
            return read();
        };
        match rows.get_value_or_guard(key, Some(Duration::ZERO)) {
            GuardResult::Value(row) => Some(row),
            // From here on, whoever takes the key out also takes out the place that is held for it. A batch that did so
            // before this place was there says that it is writing.
            GuardResult::Guard(place) if !self.writing.load(Ordering::SeqCst) => {
                let row = read()?;
                // Fails when the key was written meanwhile.
                place.insert(row.clone()).ok();
                Some(row)
            }
            GuardResult::Guard(_) | GuardResult::Timeout => read(),
        }
    }

    /// What all that is here takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.rows.as_ref().map_or(0, Cache::weight)
    }

    /// Before a batch is written.
    pub(super) fn forget(&self, effects: &Effects) {
        let Some(rows) = &self.rows else {
            return;
        };
        self.writing.store(true, Ordering::SeqCst);
        for key in effects.heads.keys() {
            rows.remove(key.as_ref());
        }
    }

    /// After it was written.
    pub(super) fn learn(&self, effects: &Effects) {
        let Some(rows) = &self.rows else {
            return;
        };
        for (key, head) in &effects.heads {
            let record = effects.records.get(key).and_then(Option::as_ref);
            if let (Some(head), Some(record)) = (*head, record) {
                // No copy: each value of a command has memory of its own since it was decoded, so nothing larger stays
                // with it.
                let value = record.value.clone();
                rows.insert(key.to_vec(), Row { head, value });
            }
        }
        self.writing.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::small::{entry, opened};
    use std::sync::atomic::AtomicU64;
    use std::thread;

    fn row(modified: u64) -> Row {
        let head = Head {
            created: 1,
            modified,
            version: 1,
            lease: 0,
            hash: 0,
        };
        let value = Bytes::from_static(b"value");
        Row { head, value }
    }

    /// A batch that writes the key at this revision, or deletes it.
    fn batch(modified: Option<u64>) -> Effects {
        let (key, row) = (Bytes::from_static(b"key"), modified.map(row));
        let record = row.as_ref().map(|row| row.head.with_value(row.value.clone()));
        Effects {
            heads: [(key.clone(), row.map(|row| row.head))].into(),
            records: [(key, record)].into(),
            ..Effects::default()
        }
    }

    fn at_hand(records: &Records) -> Option<u64> {
        records.peek(b"key").map(|row| row.head.modified)
    }

    fn modified(row: Option<Row>) -> Option<u64> {
        row.map(|row| row.head.modified)
    }

    #[test]
    fn what_was_read_is_at_hand_until_it_is_written() {
        let records = Records::new(1 << 20);
        assert_eq!(modified(records.get(b"key", || None)), None);
        assert_eq!(modified(records.get(b"key", || Some(row(1)))), Some(1));
        assert_eq!(modified(records.get(b"key", || panic!("it is at hand"))), Some(1));
        records.forget(&batch(Some(2)));
        assert_eq!(at_hand(&records), None);
        // Both are right while it is written, but neither may stay.
        assert_eq!(modified(records.get(b"key", || Some(row(1)))), Some(1));
        assert_eq!(at_hand(&records), None);
        records.learn(&batch(Some(2)));
        assert_eq!(at_hand(&records), Some(2));
        records.forget(&batch(None));
        records.learn(&batch(None));
        assert_eq!(at_hand(&records), None);
    }

    #[test]
    fn what_was_written_is_not_copied() {
        let records = Records::new(1 << 20);
        let written = batch(Some(1));
        records.forget(&written);
        records.learn(&written);
        let record = written.records[b"key".as_slice()].as_ref().expect("it was put");
        let row = records.peek(b"key").expect("it is at hand");
        assert_eq!(row.value.as_ptr(), record.value.as_ptr());
    }

    #[test]
    fn what_was_written_while_it_was_read_does_not_stay() {
        for (written, stays) in [(Some(2), Some(2)), (None, None)] {
            let records = Records::new(1 << 20);
            let read = records.get(b"key", || {
                records.forget(&batch(written));
                records.learn(&batch(written));
                Some(row(1))
            });
            assert_eq!((modified(read), at_hand(&records)), (Some(1), stays));
            // Nor does it when the batch is under way still.
            let records = Records::new(1 << 20);
            records.get(b"key", || {
                records.forget(&batch(written));
                Some(row(1))
            });
            assert_eq!(at_hand(&records), None);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        const BYTES: u64 = 64 << 10;
        let records = Records::new(BYTES);
        for key in 0..1000_u32 {
            records.get(&key.to_be_bytes(), || Some(row(1)));
            let rows = records.rows.as_ref().expect("rows are kept");
            assert!(rows.weight() <= BYTES, "{} bytes", rows.weight());
        }
        // A value that has no room at all is read each time.
        let large = Row {
            value: vec![0; 64 << 10].into(),
            ..row(1)
        };
        records.get(b"large", || Some(large));
        assert!(records.peek(b"large").is_none());
    }

    /// Each batch writes the one key and then the other; who has seen the second as it is now must not see the first as
    /// it was before.
    #[test]
    fn readers_beside_the_writer_see_whole_batches() {
        const BATCHES: u64 = 4000;
        let folder = tempfile::tempdir().expect("a folder");
        let machine = opened(folder.path());
        let written = AtomicU64::new(0);
        let seen = |key: &'static [u8]| {
            let generation = machine.generation();
            let record = generation.db().record_now(key);
            record.map_or(0, |record| record.modified.div_ceil(2))
        };
        thread::scope(|scope| {
            for (first, second) in [(b"a", b"b"), (b"b", b"a"), (b"b", b"a")] {
                let (written, seen) = (&written, &seen);
                scope.spawn(move || {
                    loop {
                        let begun = written.load(Ordering::SeqCst);
                        let (one, other) = (seen(first), seen(second));
                        assert!(
                            begun <= one && one <= other,
                            "after batch {begun}: {one}, then {other}"
                        );
                        if begun == BATCHES {
                            break;
                        }
                    }
                });
            }
            for batch in 1..=BATCHES {
                let put = |key: &'static [u8]| Action::Put {
                    key: Bytes::from_static(key),
                    value: Bytes::from_static(b"value"),
                    lease: 0,
                    expect: Expect::Any,
                };
                machine
                    .apply(vec![entry(batch, 1000, [put(b"a"), put(b"b")])])
                    .expect("it is applied");
                written.store(batch, Ordering::SeqCst);
            }
        });
    }
}
