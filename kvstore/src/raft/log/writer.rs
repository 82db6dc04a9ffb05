//! The one thread that changes the log on disk, but for files of removed entries (`reclaim`): group commit without timers.
//!
//! It drains everything queued into one batch, syncs it once, and then calls back for all of it; what
//! arrives meanwhile is the next batch. A failed write or sync is final: the page may be marked clean,
//! so a retry could report success for data that is lost.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::Log;
use super::reclaim::Reclaimer;
use crate::metrics::NodeMetrics;
use crate::raft::types::TypeConfig;
use crate::storage::log_db::{LogBatch, LogDb, TailMark};

/// Bytes of entries under one fsync; more would only delay the first of them.
const BATCH_BYTES_MAX: usize = 8 << 20;

pub(super) enum Work {
    Append {
        entries: Vec<(u64, Bytes)>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        encoded: Vec<u8>,
        /// Term and node, for the mark.
        vote: (u64, u64),
        done: oneshot::Sender<()>,
    },
    Truncate {
        end: u64,
        done: oneshot::Sender<()>,
    },
    Purge {
        encoded: Vec<u8>,
        end: u64,
    },
}

pub(super) struct Writer {
    log: Arc<Log>,
    mark: TailMark,
    work: mpsc::Receiver<Work>,
    broken: Option<oneshot::Sender<io::Error>>,
    metrics: Arc<NodeMetrics>,
    reclaimer: Reclaimer,
}

/// Everything that is answered once a batch is on disk.
#[derive(Default)]
struct Waiting {
    appended: Vec<IOFlushed<TypeConfig>>,
    done: Vec<oneshot::Sender<()>>,
    last: Option<u64>,
    vote: Option<(u64, u64)>,
    purged: Option<u64>,
}

impl Writer {
    pub(super) fn new(
        log: Arc<Log>,
        mark: TailMark,
        work: mpsc::Receiver<Work>,
        broken: oneshot::Sender<io::Error>,
        metrics: Arc<NodeMetrics>,
        reclaimer: Reclaimer,
    ) -> Self {
        Self {
            log,
            mark,
            work,
            broken: Some(broken),
            metrics,
            reclaimer,
        }
    }

    pub(super) fn run(mut self) {
        while let Some(first) = self.work.blocking_recv() {
            if let Err(error) = self.drain(first) {
                tracing::error!(%error, "the log cannot be written; this node stops, so that it acknowledges nothing it may lose");
                if let Some(broken) = self.broken.take() {
                    // The receiver is gone only when the node is stopping already.
                    broken.send(error).ok();
                }
                return;
            }
        }
    }

    fn drain(&mut self, first: Work) -> io::Result<()> {
        let mut batch = LogBatch::default();
        let mut waiting = Waiting::default();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Append { entries, callback } => {
                    for (index, encoded) in entries {
                        bytes += encoded.len();
                        self.log.db.put_entry(&mut batch, index, &encoded);
                        waiting.last = Some(index);
                    }
                    waiting.appended.push(callback);
                }
                Work::Vote { encoded, vote, done } => {
                    self.log.db.put_meta(&mut batch, "vote", &encoded);
                    waiting.vote = Some(vote);
                    waiting.done.push(done);
                }
                Work::Purge { encoded, end } => {
                    // Nothing before is read any more. Were it also removed as a range, the table that says so would
                    // overlap all it is about, and they would be rewritten only to be thrown away.
                    self.log.db.put_meta(&mut batch, "purged", &encoded);
                    waiting.purged = Some(end);
                }
                Work::Truncate { end, done } => {
                    // What was appended before must be on disk before it is cut, or the order is lost.
                    self.commit(std::mem::take(&mut batch), std::mem::take(&mut waiting))?;
                    self.truncate(end)?;
                    done.send(()).ok();
                }
            }
            next = if bytes < BATCH_BYTES_MAX {
                self.work.try_recv().ok()
            } else {
                None
            };
        }
        self.commit(batch, waiting)
    }

    fn commit(&mut self, mut batch: LogBatch, waiting: Waiting) -> io::Result<()> {
        if LogDb::is_empty(&batch) && waiting.appended.is_empty() {
            return Ok(());
        }
        let committed = self
            .log
            .committed
            .lock()
            .expect("no holder of the hint panics")
            .take();
        if let Some(committed) = committed {
            self.log.db.put_meta(&mut batch, "committed", &committed);
        }
        let entries = batch.entries;
        let started = Instant::now();
        self.metrics.log_pace.begin();
        self.log.db.commit(batch).map_err(io::Error::other)?;
        self.metrics.log_synced(entries, started.elapsed());
        if waiting.last.is_some() || waiting.vote.is_some() {
            self.mark.raise(waiting.last.map(|last| last + 1), waiting.vote)?;
        }
        if let Some(last) = waiting.last {
            self.log.tail.flushed(last + 1);
            self.log.flushed.send_replace(last + 1);
        }
        for callback in waiting.appended {
            callback.io_completed(Ok(()));
        }
        for done in waiting.done {
            done.send(()).ok();
        }
        if let Some(end) = waiting.purged {
            self.reclaimer.removed_before(end);
        }
        Ok(())
    }

    fn truncate(&mut self, end: u64) -> io::Result<()> {
        self.mark.lower(end)?;
        let mut batch = LogBatch::default();
        self.log.db.remove(&mut batch, end, u64::MAX);
        self.log.db.commit(batch).map_err(io::Error::other)?;
        self.log.flushed.send_replace(end);
        Ok(())
    }
}
