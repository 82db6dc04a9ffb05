//! How many synced batches the log's database takes on a disk: what the whole store can at most do with it.
//! Invariant: the same options and the same call as the log itself uses.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::log_db::{LogBatch, LogDb};

const MEMTABLE_BYTES: usize = 8 << 20;

/// Writes batches of so many records, one after the other, for so long, and answers how many there were.
pub fn synced_batches(
    folder: &Path,
    records: usize,
    record_bytes: usize,
    time: Duration,
) -> io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let db = LogDb::open(folder, MEMTABLE_BYTES).map_err(io::Error::other)?;
    let record = vec![b'r'; record_bytes];
    let begin = Instant::now();
    let (mut count, mut index) = (0, 0);
    while begin.elapsed() < time {
        let mut batch = LogBatch::default();
        for _ in 0..records {
            index += 1;
            db.put_entry(&mut batch, index, &record);
        }
        db.commit(batch).map_err(io::Error::other)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let count = synced_batches(folder.path(), 4, 16, Duration::from_millis(50)).unwrap();
        assert!(count > 0);
    }
}
