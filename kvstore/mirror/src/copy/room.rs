//! The room that a copy in SQLite takes while it is made anew: all of it stands in the log first, and then in the file.
//! Invariant: some room is left to whoever else writes to that disk, such as a node of the store, and what a try in vain
//! took is given back. It must not know what is written.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::Connection;

use super::sqlite::{BUSY, FILE, WAL};

/// What SQLite holds back in its cache until it commits.
const CACHED_BYTES: u64 = 64 << 20;
/// Of a small disk one part in so many is left, if that is less.
const LEFT_PART: u64 = 16;
/// A try reads the whole store: one that cannot fit either is not begun. The store may have become smaller, though.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Until the log is cut off again, after somebody still read what was before.
const CUT_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Room {
    pub(super) folder: PathBuf,
    /// Of the disk, what is left to others.
    left_bytes: u64,
    /// What the last try in vain would have needed at least, and when that was.
    lacked: Option<(u64, Instant)>,
    /// When the log is to be cut off, if that is still to be done.
    cut_at: Option<Instant>,
}

/// How large a disk is, and what of it is free.
struct Disk {
    size_bytes: u64,
    free_bytes: u64,
}

impl Disk {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let disk = rustix::fs::statvfs(folder).context("look how much room the disk has")?;
        Ok(Self {
            size_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        })
    }

    /// What would have to be free before so much may be taken, unless it is: so much is left, or the part that is less.
    fn lacks(&self, bytes: u64, left_bytes: u64) -> Option<u64> {
        let needed = bytes.saturating_add(left_bytes.min(self.size_bytes / LEFT_PART));
        // A disk that does not say how large it is says nothing of what is free either.
        (self.size_bytes > 0 && self.free_bytes < needed).then_some(needed)
    }
}

impl Room {
    /// What nodes want to be free before they refuse writes (`limits.disk_free_bytes_min`) is left to them.
    pub(super) fn of(folder: &Path, free_bytes_min: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            left_bytes: free_bytes_min.saturating_add(CACHED_BYTES),
            lacked: None,
            cut_at: None,
        }
    }

    fn lacked_lately(&self) -> u64 {
        let lately = self.lacked.filter(|(_, at)| at.elapsed() < REMEMBERED);
        lately.map_or(0, |(bytes, _)| bytes)
    }

    /// Whether a try may begin.
    pub(super) fn may_begin(&self) -> anyhow::Result<()> {
        self.check(self.lacked_lately())
    }

    /// Whether what is in the transaction so far can be moved into the file.
    pub(super) fn may_go_on(&self, connection: &Connection) -> anyhow::Result<()> {
        self.check(self.growth(connection)?)
    }

    /// Whether so much of the folder's disk may be taken.
    pub(super) fn check(&self, bytes: u64) -> anyhow::Result<()> {
        match Disk::of(&self.folder)?.lacks(bytes, self.left_bytes) {
            None => Ok(()),
            Some(needed) => anyhow::bail!(
                "the disk has no room for it: at least {} MiB must be free",
                needed.div_ceil(1 << 20)
            ),
        }
    }

    /// By how much the file is still to grow.
    fn growth(&self, connection: &Connection) -> anyhow::Result<u64> {
        let whole = number(connection, "page_count")?.saturating_mul(number(connection, "page_size")?);
        Ok(whole.saturating_sub(length(&self.folder.join(FILE))))
    }

    /// Before a try is rolled back: if it was in vain for want of room, the next one needs as much.
    pub(super) fn remember(&mut self, connection: &Connection) {
        if self.may_go_on(connection).is_ok() {
            return;
        }
        let taken = length(&self.folder.join(WAL)) + self.growth(connection).unwrap_or(0);
        let lacked = self.lacked_lately().max(taken);
        self.lacked = Some((lacked, Instant::now()));
    }

    /// After a try that was not in vain.
    pub(super) fn was_enough(&mut self, connection: &Connection) {
        self.lacked = None;
        self.cut_log(connection);
    }

    /// The log would keep the size that one transaction gave it.
    pub(super) fn cut_log(&mut self, connection: &Connection) {
        let done = cut(connection);
        if let Err(error) = &done {
            tracing::debug!(%error, "the log of the copy could not be cut off");
        }
        let again = Instant::now() + CUT_PAUSE;
        self.cut_at = (!matches!(done, Ok(true))).then_some(again);
    }

    pub(super) fn tidy(&mut self, connection: &Connection) {
        let due = self.cut_at.is_some_and(|at| Instant::now() >= at);
        if due && connection.is_autocommit() {
            self.cut_log(connection);
        }
    }
}

/// Moves all that is in the log into the file. False while somebody reads what was before: who writes must not wait.
fn cut(connection: &Connection) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy = connection.query_row(sql, [], |row| row.get::<_, bool>(0));
    connection.busy_timeout(BUSY)?;
    Ok(!busy?)
}

/// What a copy of the database takes up.
pub(super) fn used_bytes(connection: &Connection) -> anyhow::Result<u64> {
    let pages = number(connection, "page_count")?.saturating_sub(number(connection, "freelist_count")?);
    Ok(pages.saturating_mul(number(connection, "page_size")?))
}

fn number(connection: &Connection, pragma: &str) -> anyhow::Result<u64> {
    let number: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

/// 0 where there is no such file.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use service::config::{MirrorEngine, MirrorMode};

    use super::*;
    use crate::copy::{self, Writer};
    use crate::row::Row;

    /// One row for each MiB.
    fn begin(writer: &mut Writer, mib: usize) {
        let rows = (0..mib).map(|number| Row {
            key: format!("key-{number}"),
            value: vec![b'x'; 1 << 20].into(),
            ..Row::default()
        });
        writer.begin_rebuild().unwrap();
        writer.rebuild_rows(rows.collect()).unwrap();
    }

    #[tokio::test]
    async fn the_log_is_cut_off_once_nobody_reads_what_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) =
            copy::open(folder.path(), MirrorEngine::Sqlite, MirrorMode::Async, 0).unwrap();
        let log = folder.path().join(WAL);
        // More than the cache holds.
        begin(&mut writer, 40);
        assert!(length(&log) > 1 << 20);
        writer.abort_rebuild();
        assert_eq!(length(&log), 0, "it was in vain");
        let old = reader.view().unwrap();
        begin(&mut writer, 2);
        writer.end_rebuild(5, "cluster").unwrap();
        assert!(length(&log) > 1 << 20, "somebody reads the old copy");
        assert_eq!(old.head().revision, 0);
        drop(old);
        let began = Instant::now();
        while length(&log) > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", length(&log));
            writer.tidy().unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(reader.view().unwrap().count().unwrap(), 2);
    }

    #[test]
    fn a_try_is_not_begun_that_cannot_fit_either() {
        let folder = tempfile::tempdir().unwrap();
        let mut room = Room {
            left_bytes: 0,
            ..Room::of(folder.path(), 0)
        };
        room.may_begin().unwrap();
        room.lacked = Some((1 << 60, Instant::now()));
        let error = room.may_begin().unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }

    #[test]
    fn as_much_is_left_as_the_nodes_want() {
        const GIB: u64 = 1 << 30;
        let wanted = Room::of(Path::new(""), GIB).left_bytes;
        // The size of the disk, what is to be left of it, and what that comes to.
        for (size_bytes, left_bytes, left) in [
            (100 * GIB, wanted, GIB + CACHED_BYTES),
            (100 * GIB, CACHED_BYTES, CACHED_BYTES),
            (8 * GIB, wanted, GIB / 2),
            (GIB / 16, CACHED_BYTES, GIB / 256),
        ] {
            for (taken, needed) in [(0, left), (GIB, GIB + left)] {
                let lacks = |free_bytes| {
                    let disk = Disk {
                        size_bytes,
                        free_bytes,
                    };
                    disk.lacks(taken, left_bytes)
                };
                assert_eq!(lacks(needed), None, "{size_bytes} {left_bytes}");
                assert_eq!(lacks(needed - 1), Some(needed), "{size_bytes} {left_bytes}");
            }
        }
        let silent = Disk {
            size_bytes: 0,
            free_bytes: 0,
        };
        assert_eq!(silent.lacks(GIB, wanted), None);
    }
}
