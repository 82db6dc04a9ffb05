//! Reads of the log, for replication and for `apply`: from the tail in memory, else from disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::RaftLogReader;

use super::{Log, LogStore, io_error};
use crate::raft::entry;
use crate::raft::types::{Entry, TypeConfig, Vote};

/// Bytes of entries in one message to a follower.
const MESSAGE_BYTES_MAX: usize = 2 << 20;

#[derive(Clone)]
pub struct LogReader {
    pub(super) log: Arc<Log>,
}

impl Log {
    /// Entries `from..to` as far as `bytes_max` allows; at least one if there is one.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(found) = self.tail.read(from, to, bytes_max) {
            return Ok(found);
        }
        // The tail only loses entries that are on disk, so disk then tail leaves no gap.
        let on_disk = self
            .db
            .entries(from, to.min(self.tail.first()), bytes_max)
            .map_err(io_error)?;
        let mut found = Vec::with_capacity(on_disk.len());
        let mut bytes = 0;
        // What is on neither side of the tail's beginning was purged, or never was.
        let mut next = if on_disk.is_empty() {
            self.tail.first().max(from)
        } else {
            from
        };
        for (index, encoded) in on_disk {
            bytes += encoded.len();
            found.push(entry::decode(&encoded).map_err(io_error)?);
            next = index + 1;
        }
        if next < to && bytes < bytes_max {
            found.extend(self.tail.read(next, to, bytes_max - bytes).unwrap_or_default());
        }
        Ok(found)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        self.log.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.log.vote.lock().expect("no holder of the vote panics"))
    }

    /// Bounded in bytes, so that one message neither blocks the stream nor exceeds a frame.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.log.read(start, end, MESSAGE_BYTES_MAX)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        self.log.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.log.vote.lock().expect("no holder of the vote panics"))
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}
