//! The log's database: one RocksDB with a WAL that is synced before anything is acknowledged.
//!
//! Each entry carries a checksum of its own; the durable-tail mark in a file beside it tells, after a
//! damage, that entries which were once synced are missing. It must not know openraft's types.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Env, Options, WriteBatch,
    WriteOptions,
};
use service::planted::{Bug, is_planted};

use super::closing::Closing;

const ENTRIES: &str = "log";
const META: &str = "meta";

pub(crate) struct LogDb {
    db: DB,
    pub(crate) closing: Closing,
}

/// One atomic, synced step of the log.
#[derive(Default)]
pub(crate) struct LogBatch {
    batch: WriteBatch,
    pub(crate) entries: usize,
}

impl LogDb {
    pub(crate) fn open(path: &Path, memtable_bytes: usize) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Both tables together, or the few bytes of `meta` would keep every WAL alive.
        options.set_atomic_flush(true);
        let mut env = Env::new()?;
        env.set_background_threads(1);
        env.set_high_priority_background_threads(2);
        options.set_env(&env);
        options.set_max_background_jobs(2);
        options.set_paranoid_checks(true);
        // One thread writes, in the order of the log, so each insert begins where the last one ended.
        options.set_allow_concurrent_memtable_write(false);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(true);
        // Written back little by little: one large flush at once stalls the log's own syncs.
        options.set_bytes_per_sync(1 << 20);
        options.set_ratelimiter(64 << 20, 100_000, 10);
        options.set_keep_log_file_num(3);
        // A file that is written over keeps its size, so a sync need not commit the file system's journal: it
        // takes half the time.
        options.set_recycle_log_file_num(4);
        options.set_max_open_files(256);
        let mut table = Options::default();
        table.set_write_buffer_size(memtable_bytes);
        table.set_max_write_buffer_number(4);
        // Entries are purged soon; to compress them is work thrown away.
        table.set_compression_type(DBCompressionType::None);
        let tables = [
            ColumnFamilyDescriptor::new(ENTRIES, table),
            ColumnFamilyDescriptor::new(META, Options::default()),
        ];
        Ok(Self {
            db: DB::open_cf_descriptors(&options, path, tables)?,
            closing: Closing::new(),
        })
    }

    /// Opens the log of a node that has stopped, without changing it.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.set_max_open_files(64);
        Ok(Self {
            db: DB::open_cf_for_read_only(&options, path, [ENTRIES, META], false)?,
            closing: Closing::new(),
        })
    }

    fn table(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("all tables are opened with the database")
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(batch: &LogBatch) -> bool {
        batch.batch.is_empty()
    }

    pub(crate) fn put_entry(&self, batch: &mut LogBatch, index: u64, encoded: &[u8]) {
        batch
            .batch
            .put_cf(self.table(ENTRIES), index.to_be_bytes(), encoded);
        batch.entries += 1;
    }

    pub(crate) fn put_meta(&self, batch: &mut LogBatch, name: &str, value: &[u8]) {
        batch.batch.put_cf(self.table(META), name, value);
    }

    /// Removes entries `from..to`.
    pub(crate) fn remove(&self, batch: &mut LogBatch, from: u64, to: u64) {
        batch
            .batch
            .delete_range_cf(self.table(ENTRIES), from.to_be_bytes(), to.to_be_bytes());
    }

    /// Gives back the room of what was purged before `end`, as far as it has files of its own below the first level, to
    /// which they are moved as more is written. Nothing else does: a purge is only a mark, so no compaction drops what
    /// is before it.
    pub(crate) fn drop_files_before(&self, end: u64) -> Result<(), rocksdb::Error> {
        // A file that ends with this very key goes too, so it must be one of those that were removed.
        let Some(last) = end.checked_sub(1) else {
            return Ok(());
        };
        let entries = self.table(ENTRIES);
        self.db
            .delete_file_in_range_cf(entries, 0_u64.to_be_bytes(), last.to_be_bytes())
    }

    /// Returns once the batch is on disk.
    pub(crate) fn commit(&self, batch: LogBatch) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(
            !is_planted(Bug::SyncAfterAnswer) || self.db.latest_sequence_number().is_multiple_of(64),
        );
        self.db.write_opt(batch.batch, &options)
    }

    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        self.db.get_cf(self.table(META), name)
    }

    /// Entries `from..to` in order, as far as `bytes_max` allows, at least one if there is one.
    pub(crate) fn entries(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, rocksdb::Error> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut cursor = self.db.raw_iterator_cf(self.table(ENTRIES));
        cursor.seek(from.to_be_bytes());
        while let Some((key, value)) = cursor.item() {
            let index = u64::from_be_bytes(key.try_into().expect("an entry's key is its index"));
            if index >= to || (!found.is_empty() && bytes >= bytes_max) {
                break;
            }
            bytes += value.len();
            found.push((index, Bytes::copy_from_slice(value)));
            cursor.next();
        }
        cursor.status()?;
        Ok(found)
    }

    pub(crate) fn last(&self) -> Result<Option<(u64, Bytes)>, rocksdb::Error> {
        let mut cursor = self.db.raw_iterator_cf(self.table(ENTRIES));
        cursor.seek_to_last();
        let last = cursor.item().map(|(key, value)| {
            let index = u64::from_be_bytes(key.try_into().expect("an entry's key is its index"));
            (index, Bytes::copy_from_slice(value))
        });
        cursor.status()?;
        Ok(last)
    }
}

/// What this disk once had for certain: the end (last index + 1) of the log and the latest vote. A file of its
/// own, so that losing the end of the log does not lose the knowledge of it. It may lag one batch, and after a loss
/// of power by what the kernel had not written back, some 30 s; it is never ahead. So entries that a disk had
/// promised to keep and has lost with its power are noticed as far as they are older than that.
#[derive(Debug)]
pub(crate) struct TailMark {
    file: File,
    marked: Marked,
    /// Up to here entries were lost; until they are back the mark does not fall below, also not over a restart.
    lost_up_to: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) end: u64,
    /// Term and node of the vote; a node that forgot it could vote twice.
    pub(crate) vote: (u64, u64),
}

const MARK_BYTES: usize = 28;

impl TailMark {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let marked = read_mark(&file)?;
        Ok(Self {
            file,
            marked,
            lost_up_to: 0,
        })
    }

    /// The log ends there. Where the mark says that it once reached further, that is kept until it does again.
    pub(crate) fn compare(&mut self, end: u64) -> Option<u64> {
        let lost_up_to = Some(self.marked.end).filter(|marked| *marked > end);
        self.lost_up_to = lost_up_to.unwrap_or(0);
        lost_up_to
    }

    pub(crate) fn marked(&self) -> Marked {
        self.marked
    }

    /// Called after the log's sync; not synced itself, since lagging is allowed.
    pub(crate) fn raise(&mut self, end: Option<u64>, vote: Option<(u64, u64)>) -> io::Result<()> {
        let Marked {
            end: old_end,
            vote: old_vote,
        } = self.marked;
        if end.is_some_and(|end| end >= self.lost_up_to) {
            self.lost_up_to = 0;
        }
        self.write(Marked {
            end: end.unwrap_or(old_end).max(self.lost_up_to),
            vote: vote.unwrap_or(old_vote),
        })
    }

    /// Called before entries are cut off: a mark ahead of the log would look like damage.
    pub(crate) fn lower(&mut self, end: u64) -> io::Result<()> {
        self.raise(Some(end), None)?;
        self.file.sync_data()
    }

    fn write(&mut self, marked: Marked) -> io::Result<()> {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&marked.end.to_le_bytes());
        bytes[8..16].copy_from_slice(&marked.vote.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&marked.vote.1.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        self.marked = marked;
        Ok(())
    }
}

/// Nothing when it was never written, or torn by a power loss: it is a hint, not the log.
fn read_mark(file: &File) -> io::Result<Marked> {
    let mut bytes = [0; MARK_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Marked::default()),
        Err(error) => return Err(error),
    }
    let (content, checksum) = bytes.split_at(24);
    if crc32c::crc32c(content).to_le_bytes() != checksum {
        return Ok(Marked::default());
    }
    let number = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("eight bytes"));
    Ok(Marked {
        end: number(0),
        vote: (number(8), number(16)),
    })
}

#[cfg(test)]
impl LogDb {
    /// As if they had been written long ago: these entries are a file of their own below the first level.
    pub(crate) fn put_file(&self, entries: std::ops::Range<u64>, encode: impl Fn(u64) -> Bytes) {
        let (table, mut batch) = (self.table(ENTRIES), LogBatch::default());
        for index in entries.clone() {
            self.put_entry(&mut batch, index, &encode(index));
        }
        self.commit(batch).expect("they are written");
        self.db.flush_cf(table).expect("they are flushed");
        let key = |index: u64| Some(index.to_be_bytes());
        self.db
            .compact_range_cf(table, key(entries.start), key(entries.end - 1));
    }

    /// How many files hold entries.
    pub(crate) fn files(&self) -> usize {
        let files = self.db.live_files().expect("it knows its files");
        files
            .iter()
            .filter(|file| file.column_family_name == ENTRIES)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 8;
    const END: u64 = 10 * CHUNK;

    #[test]
    fn the_files_of_removed_entries_go_and_no_entry_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogDb::open(folder.path(), 1 << 20).unwrap();
        for chunk in 0..END / CHUNK {
            log.put_file(chunk * CHUNK..(chunk + 1) * CHUNK, |_| {
                Bytes::from_static(&[7; 100])
            });
        }
        let before = log.files();
        let mut removed = 0;
        for end in 1..=END {
            let mut batch = LogBatch::default();
            log.remove(&mut batch, removed, end);
            log.commit(batch).unwrap();
            removed = end;
            log.drop_files_before(end).unwrap();
            let left = log.entries(end, u64::MAX, usize::MAX).unwrap();
            let left = left.into_iter().map(|(index, _)| index);
            assert!(left.eq(end..END), "removed below {end}");
        }
        assert_eq!((before, log.files()), (10, 0));
    }
}
