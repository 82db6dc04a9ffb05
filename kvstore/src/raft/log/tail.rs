//! The log's newest entries in memory: readable the moment they are appended, before any fsync, so
//! that followers and the local disk receive them at the same time.

use std::collections::VecDeque;
use std::sync::RwLock;

use bytes::Bytes;
use openraft::entry::RaftEntry;

use crate::raft::types::{Entry, LogId};

/// Flushed entries are kept up to this many bytes, for followers a little behind and for `apply`.
const KEEP_BYTES: usize = 16 << 20;

pub(super) struct Tail {
    entries: RwLock<Entries>,
}

struct Entries {
    items: VecDeque<(Entry, usize)>,
    /// Index of the first item, or of the next one to come: what is appended continues the log without a gap.
    first: u64,
    bytes: usize,
}

const POISON: &str = "no holder of the log's tail panics";

impl Tail {
    pub(super) fn new(next: u64) -> Self {
        Self {
            entries: RwLock::new(Entries {
                items: VecDeque::new(),
                first: next,
                bytes: 0,
            }),
        }
    }

    pub(super) fn push(&self, added: Vec<(Entry, Bytes)>) {
        let mut tail = self.entries.write().expect(POISON);
        for (entry, encoded) in added {
            let index = entry.log_id().index;
            if tail.first == 0 && tail.items.is_empty() {
                // openraft's own suite begins its logs anywhere.
                tail.first = index;
            }
            assert_eq!(
                index,
                tail.first + tail.items.len() as u64,
                "entries are appended without a gap"
            );
            tail.bytes += encoded.len();
            tail.items.push_back((entry, encoded.len()));
        }
    }

    /// Only what is on disk may leave the tail.
    pub(super) fn flushed(&self, end: u64) {
        let mut tail = self.entries.write().expect(POISON);
        while tail.bytes > KEEP_BYTES && tail.first < end {
            tail.drop_first();
        }
    }

    pub(super) fn truncate(&self, end: u64) {
        let mut tail = self.entries.write().expect(POISON);
        while tail
            .items
            .back()
            .is_some_and(|(entry, _)| entry.log_id().index >= end)
        {
            let (_, bytes) = tail.items.pop_back().expect("it was just seen");
            tail.bytes -= bytes;
        }
        if tail.items.is_empty() {
            tail.first = tail.first.min(end);
        }
    }

    /// All before `end` is needed no longer, and may never have been here: a snapshot stands for it.
    pub(super) fn purge(&self, end: u64) {
        let mut tail = self.entries.write().expect(POISON);
        while !tail.items.is_empty() && tail.first < end {
            tail.drop_first();
        }
        tail.first = tail.first.max(end);
    }

    /// What of `from..to` is here: `None` if the beginning is not.
    pub(super) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let tail = self.entries.read().expect(POISON);
        if tail.items.is_empty() || from < tail.first {
            return None;
        }
        let skip = usize::try_from(from - tail.first).expect("the tail fits into memory");
        let mut bytes = 0;
        let wanted = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for (entry, size) in tail.items.iter().skip(skip).take(wanted) {
            if !found.is_empty() && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            found.push(entry.clone());
        }
        Some(found)
    }

    /// Where the tail begins, before which the database has everything, and what of `from..to` is here, each with its size.
    pub(super) fn read_from(&self, from: u64, to: u64, bytes_max: usize) -> (u64, Vec<(Entry, usize)>) {
        let tail = self.entries.read().expect(POISON);
        let from = from.max(tail.first);
        let skip = usize::try_from(from - tail.first).expect("the tail fits into memory");
        let wanted = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let within = |(_, size): &&(Entry, usize)| {
            let before = bytes;
            bytes += size;
            before < bytes_max
        };
        let items = tail.items.iter().skip(skip).take(wanted);
        (tail.first, items.take_while(within).cloned().collect())
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> u64 {
        let tail = self.entries.read().expect(POISON);
        tail.first + tail.items.len() as u64
    }

    #[cfg(test)]
    pub(super) fn first(&self) -> u64 {
        self.entries.read().expect(POISON).first
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.entries
            .read()
            .expect(POISON)
            .items
            .back()
            .map(|(entry, _)| entry.log_id())
    }
}

impl Entries {
    fn drop_first(&mut self) {
        if let Some((_, bytes)) = self.items.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
    }
}
