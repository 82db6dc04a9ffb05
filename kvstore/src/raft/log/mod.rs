//! The log as openraft sees it.
//!
//! `append` puts entries into the tail in memory and returns; the writer thread syncs them, many
//! batches with one fsync, and only then calls back. Order of everything that changes the log is the
//! order of the writer's queue, but for files of removed entries (`reclaim`). Reads come from the tail, else from the database.

mod check;
#[cfg(test)]
pub(crate) mod held;
mod pace;
mod reader;
mod reclaim;
mod tail;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};

use check::{Checked, begin_behind_the_snapshot, check_contiguity, drop_what_the_snapshot_covers};
pub use pace::Pace;
pub use reader::LogReader;
pub(super) use reader::MESSAGE_BYTES_MAX;
use reclaim::Reclaimer;
use tail::Tail;
use writer::{Work, Writer};

use super::entry::{self, MalformedEntry};
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::metrics::NodeMetrics;
use crate::storage::closing::{Closed, Joined};
use crate::storage::damage::{advise, is_corruption};
use crate::storage::files;
use crate::storage::log_db::{LogDb, TailMark};

/// Steps queued for the writer; a full queue makes openraft wait.
const QUEUE: usize = 1024;

/// Shared by the store, its readers and the writer thread.
pub(super) struct Log {
    db: LogDb,
    tail: Tail,
    /// End (last index + 1) of what is on this disk.
    flushed: watch::Sender<u64>,
    /// End of what was purged.
    purged: AtomicU64,
    vote: std::sync::Mutex<Option<Vote>>,
    /// How far the cluster has committed, encoded: written with the next batch that is synced anyway.
    committed: std::sync::Mutex<Option<Vec<u8>>>,
}

#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
    queue: mpsc::Sender<Work>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// After the queue, whose end ends it.
    _writer: Arc<Joined>,
}

/// What the log held when it was opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Last index + 1.
    pub end: u64,
    /// Entries that were once on this disk and are not any more reach up to here.
    pub lost_up_to: Option<u64>,
    /// Of the latest vote.
    pub vote_term: u64,
    /// Of the entries that no snapshot stands for.
    pub bytes: u64,
    /// Of those before.
    pub bytes_covered: u64,
}

fn read_meta<T: DeserializeOwned>(db: &LogDb, name: &str) -> io::Result<Option<T>> {
    let stored = db.meta(name).map_err(io_error)?;
    Ok(stored.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

/// The last entry that a log has given up. It and those before may still be on the disk.
pub(crate) fn purged_of(db: &LogDb) -> io::Result<Option<LogId>> {
    read_meta(db, "purged")
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl LogStore {
    /// Opens the log below `folder`, checks it, and starts the writer thread. The returned handle ends
    /// when the last store is dropped; an error of it is a disk that can no longer be trusted.
    /// `snapshot` is the last entry that this node's snapshot holds: what is missing up to it is no loss. `starts` is
    /// how often the node has been started before, so far as its identity knows.
    pub fn open(
        folder: &Path,
        (snapshot, starts): (Option<LogId>, u64),
        memtable_bytes: usize,
        metrics: Arc<NodeMetrics>,
    ) -> io::Result<(Self, Opened, oneshot::Receiver<io::Error>)> {
        Self::open_checked(folder, (snapshot, starts), memtable_bytes, metrics).map_err(explain)
    }

    fn open_checked(
        folder: &Path,
        (snapshot, starts): (Option<LogId>, u64),
        memtable_bytes: usize,
        metrics: Arc<NodeMetrics>,
    ) -> io::Result<(Self, Opened, oneshot::Receiver<io::Error>)> {
        std::fs::create_dir_all(folder)?;
        let db = LogDb::open(&folder.join("db"), memtable_bytes).map_err(io_error)?;
        let mut mark = TailMark::open(&folder.join("TAIL"))?;
        // A folder that were lost with the power would take the votes with it.
        files::sync_folder(folder)?;
        count_start(folder, starts)?;
        let vote = latest_vote(read_meta(&db, "vote")?, mark.marked().vote);
        let purged = purged_of(&db)?;
        let committed: Option<LogId> = read_meta(&db, "committed")?;
        let covered = end_of(snapshot.as_ref());
        let (purged, checked) = match check_contiguity(&db, end_of(purged.as_ref()), covered) {
            Ok(checked) => (purged, checked),
            Err(gap) => drop_what_the_snapshot_covers(&db, snapshot, gap)?,
        };
        // What is gone of the log itself is noticed also where a snapshot stands for it.
        let lost_up_to = mark.compare(checked.end);
        let (purged, checked) = begin_behind_the_snapshot(&db, snapshot, (purged, checked))?;
        let Checked {
            end,
            bytes,
            bytes_covered,
        } = checked;
        let purged_end = end_of(purged.as_ref());
        let log = Arc::new(Log {
            db,
            tail: Tail::new(end),
            flushed: watch::Sender::new(end),
            purged: AtomicU64::new(purged_end),
            vote: std::sync::Mutex::new(vote),
            committed: std::sync::Mutex::new(None),
        });
        let (queue, work) = mpsc::channel(QUEUE);
        let (broken, failed) = oneshot::channel();
        let removed_from = Arc::clone(&log);
        let reclaimer = Reclaimer::start(move |end| removed_from.give_back_room(end))?;
        // The process before may have ended between the mark of a purge and the end of its files. On a full disk nobody
        // purges again before these have gone.
        reclaimer.removed_before(purged_end);
        let writer = Writer::new(Arc::clone(&log), mark, work, broken, metrics, reclaimer);
        let writer = Joined::spawn("log-writer", move || writer.run())?;
        let committed = committed.filter(|id| id.index < end);
        Ok((
            Self {
                log,
                queue,
                committed,
                purged,
                _writer: Arc::new(writer),
            },
            Opened {
                end,
                lost_up_to,
                bytes,
                bytes_covered,
                vote_term: vote.map_or(0, |vote| vote.leader_id.term),
            },
            failed,
        ))
    }

    /// Follows how far this disk has the log.
    pub fn flushed(&self) -> watch::Receiver<u64> {
        self.log.flushed.subscribe()
    }

    /// Tells when the database is closed, after the store, its readers and the writer have let go of it.
    pub(crate) fn closed(&self) -> Closed {
        self.log.db.closing.closed()
    }

    async fn enqueue(&self, work: Work) -> io::Result<()> {
        self.queue.send(work).await.map_err(io_error)
    }

    async fn and_wait(&self, make: impl FnOnce(oneshot::Sender<()>) -> Work) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.enqueue(make(done)).await?;
        waiting.await.map_err(io_error)
    }
}

/// How many starts the log knows of. Damaged, its count says nothing; the log and the state still have to agree.
pub(crate) fn starts_of(folder: &Path, known: u64) -> io::Result<u64> {
    let counted = match files::read_if_present(&folder.join("STARTS"))? {
        Some(bytes) => read_starts(&bytes),
        None => Some(0),
    };
    Ok(counted.unwrap_or(known))
}

/// A log that was put back from an old copy knows of fewer starts than the node's identity. Its own count goes first, so
/// that it may be one ahead. It is no part of the database, whose end a damage may take.
pub(super) fn count_start(folder: &Path, known: u64) -> io::Result<()> {
    let counted = starts_of(folder, known)?;
    if counted < known {
        let text = format!(
            "the log was put back from an older copy: it knows of {counted} starts, and the node was started {known} times"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let starts = (known + 1).to_string();
    let checked = format!("{starts} {:08x}\n", crc32c::crc32c(starts.as_bytes()));
    files::write_atomically(&folder.join("STARTS"), checked.as_bytes())
}

pub(super) fn read_starts(content: &[u8]) -> Option<u64> {
    let (starts, checksum) = std::str::from_utf8(content).ok()?.trim_end().split_once(' ')?;
    let sound = format!("{:08x}", crc32c::crc32c(starts.as_bytes())) == checksum;
    starts.parse().ok().filter(|_| sound)
}

/// A vote that the log lost is taken from the mark: forgotten, it could be given a second time.
fn latest_vote(stored: Option<Vote>, marked: (u64, u64)) -> Option<Vote> {
    let known = stored.map_or((0, 0), |vote| (vote.leader_id.term, vote.leader_id.node_id));
    if marked <= known {
        return stored;
    }
    let (term, node) = marked;
    tracing::error!(
        raft.term = term,
        "the vote of this term is gone from the log; the mark beside it still has it"
    );
    Some(Vote::new(term, node))
}

/// Damage says what to do; what else keeps a log from opening speaks for itself.
fn explain(error: io::Error) -> io::Error {
    let source = error.get_ref();
    let corrupt = source
        .and_then(|source| source.downcast_ref())
        .is_some_and(is_corruption);
    let malformed: Option<&MalformedEntry> = source.and_then(|source| source.downcast_ref());
    if corrupt || malformed.is_some() || error.kind() == io::ErrorKind::InvalidData {
        let said = advise("entries of this node's log", &error);
        return io::Error::new(io::ErrorKind::InvalidData, said);
    }
    error
}

fn end_of(id: Option<&LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged = self.purged;
        let last = self
            .log
            .last_log_id()?
            .filter(|last| last.index >= end_of(purged.as_ref()))
            .or(purged);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            log: Arc::clone(&self.log),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let encoded = serde_json::to_vec(vote)?;
        let voted = (vote.leader_id.term, vote.leader_id.node_id);
        self.and_wait(|done| Work::Vote {
            encoded,
            vote: voted,
            done,
        })
        .await?;
        *self.log.vote.lock().expect("no holder of the vote panics") = Some(*vote);
        Ok(())
    }

    /// Rides on the next append: losing it costs a little replay after the next election, no more.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let encoded = serde_json::to_vec(&committed)?;
        self.committed = Some(committed);
        *self.log.committed.lock().expect("no holder of the hint panics") = Some(encoded);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<(Entry, bytes::Bytes)> = entries
            .into_iter()
            .map(|item| (item.clone(), entry::encode(&item)))
            .collect();
        let encoded = entries
            .iter()
            .map(|(item, bytes)| (item.log_id().index, bytes.clone()))
            .collect();
        self.log.tail.push(entries);
        self.enqueue(Work::Append {
            entries: encoded,
            callback,
        })
        .await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let end = end_of(last.as_ref());
        self.log.tail.truncate(end);
        self.and_wait(|done| Work::Truncate { end, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let end = end_of(Some(&upto));
        self.log.purged.fetch_max(end, Ordering::AcqRel);
        let encoded = serde_json::to_vec(&upto)?;
        self.purged = Some(upto);
        self.log.tail.purge(end);
        self.enqueue(Work::Purge { encoded, end }).await
    }
}

impl Log {
    fn give_back_room(&self, end: u64) {
        if let Err(error) = self.db.drop_files_before(end) {
            tracing::warn!(%error, "the room of removed entries is given back later");
        }
    }

    fn last_log_id(&self) -> io::Result<Option<LogId>> {
        if let Some(last) = self.tail.last_log_id() {
            return Ok(Some(last));
        }
        let last = self.db.last().map_err(io_error)?;
        last.map(|(_, bytes)| {
            entry::decode(&bytes)
                .map(|entry| entry.log_id())
                .map_err(io_error)
        })
        .transpose()
    }
}

#[cfg(test)]
mod tests;
