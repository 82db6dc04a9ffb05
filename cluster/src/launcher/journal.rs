//! The journal: what has happened to the processes, in plain words, newest last.
//! Invariant: it keeps a bounded number of entries; a reader who is slower than that is told nothing twice
//! and loses only the oldest. It must not know who reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

const ENTRIES_MAX: usize = 200;

#[derive(Clone, Debug)]
pub(crate) struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    entries: Mutex<VecDeque<Entry>>,
    news: broadcast::Sender<Entry>,
    fault: watch::Sender<Option<Fault>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) at_ms: u64,
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
}

/// A process was taken away, or went; the instant is before it was done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) at: Instant,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                entries: Mutex::default(),
                news: broadcast::Sender::new(ENTRIES_MAX),
                fault: watch::Sender::new(None),
            }),
        }
    }

    pub(crate) fn write(&self, tone: Tone, text: impl Into<String>) {
        let mut entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            id: entries.back().map_or(1, |last| last.id + 1),
            at_ms: service::time::now_ms(),
            tone,
            text: text.into(),
        };
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry.clone());
        // Under the lock, so that entries are told in their order; nobody listening is fine.
        let _ = self.shared.news.send(entry);
    }

    pub(crate) fn note_fault(&self, name: &str) {
        self.shared.fault.send_replace(Some(Fault {
            name: name.to_owned(),
            at: Instant::now(),
        }));
    }

    /// What is known already, and all that comes after it.
    pub(crate) fn read(&self) -> (Vec<Entry>, broadcast::Receiver<Entry>) {
        let entries = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
        (entries.iter().cloned().collect(), self.shared.news.subscribe())
    }

    pub(crate) fn faults(&self) -> watch::Receiver<Option<Fault>> {
        self.shared.fault.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_numbers_them_without_gaps() {
        let journal = Journal::new();
        let (known, mut news) = journal.read();
        assert!(known.is_empty());
        for number in 0..300 {
            journal.write(Tone::Plain, format!("entry {number}"));
        }
        let (known, _) = journal.read();
        assert_eq!(known.len(), ENTRIES_MAX);
        assert_eq!((known[0].id, known[0].text.as_str()), (101, "entry 100"));
        assert_eq!(known.last().unwrap().id, 300);
        assert!(matches!(
            news.try_recv(),
            Err(broadcast::error::TryRecvError::Lagged(_))
        ));
    }
}
