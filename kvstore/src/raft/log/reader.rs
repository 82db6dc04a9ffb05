//! Reads of the log, for replication and for `apply`: from the tail in memory, else from disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, Stream};
use openraft::entry::RaftEntry;
use openraft::storage::RaftLogReader;

use super::{Log, LogStore, io_error};
use crate::raft::entry;
use crate::raft::types::{Entry, TypeConfig, Vote};

/// Bytes of entries in one message to a follower, before the last one of it.
pub(in crate::raft) const MESSAGE_BYTES_MAX: usize = 2 << 20;

#[derive(Clone)]
pub struct LogReader {
    pub(super) log: Arc<Log>,
}

impl Log {
    /// Entries `from..to` as far as `bytes_max` allows; at least one if there is one.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        // What was purged is on the disk until the whole file goes.
        let from = from.max(self.purged.load(Ordering::Acquire));
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(found) = self.tail.read(from, to, bytes_max) {
            return Ok(found);
        }
        // The newer ones first and at once: what leaves the tail while the rest is read from disk is no gap then.
        let (first, newer) = self.tail.read_from(from, to, bytes_max);
        let older = self
            .db
            .entries(from, to.min(first), bytes_max)
            .map_err(io_error)?;
        let mut found = Vec::with_capacity(older.len() + newer.len());
        let (mut bytes, mut end) = (0, None);
        for (index, encoded) in older {
            if end.is_some_and(|end| end != index) {
                return Err(hole(index));
            }
            bytes += encoded.len();
            found.push(entry::decode(&encoded).map_err(io_error)?);
            end = Some(index + 1);
        }
        // Where nothing is on disk before the tail, it was purged. Where that ends earlier there was no room for more, or
        // the end was cut off meanwhile.
        if end.is_none_or(|end| end == first) {
            for (entry, size) in newer {
                if !found.is_empty() && bytes + size > bytes_max {
                    break;
                }
                bytes += size;
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// All that the log has of the range, or none of it: what is applied must leave nothing out, and openraft does not
    /// look.
    fn read_all(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let (begin, end) = (
            from.max(self.purged.load(Ordering::Acquire)),
            to.min(self.tail.end()),
        );
        let found = self.read(from, to, usize::MAX)?;
        let indexes = found.iter().map(|entry| entry.log_id().index);
        if (begin..end).eq(indexes) {
            Ok(found)
        } else {
            Err(hole(begin))
        }
    }
}

fn hole(index: u64) -> io::Error {
    let text = format!("entries around {index} are missing in the log");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        self.log.read(from, to, usize::MAX)
    }

    /// For what is applied.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = bounds(&range);
        let (entries, failed) = match self.log.read_all(from, to) {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        stream::iter(entries.into_iter().map(Ok).chain(failed))
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
