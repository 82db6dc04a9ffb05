//! The one thread that writes: it puts all revisions that wait under one sync, and so keeps up with the store.
//! Invariant: progress is told after the commit. A write that failed is tried again until it succeeds, and nothing
//! later goes before it.

mod queue;

use std::sync::Arc;
use std::time::Duration;

use kvstore_client::wire::mirror::KeptAnswer;
use service::config::{MirrorConfig, MirrorMode};
use service::tasks::Tasks;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::copy::{Head, Writer};
use crate::progress::Progress;
use crate::row::{Batch, Row};
use queue::Room;
pub(crate) use queue::{Orders, Waiting};

/// What one transaction may hold.
const CHANGES_MAX: usize = 50_000;
const BYTES_MAX: usize = 32 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Between looks at what can wait.
const IDLE: Duration = Duration::from_millis(200);

type Answer = oneshot::Sender<anyhow::Result<()>>;

pub(crate) enum Order {
    Apply(Batch),
    /// Write at once what would wait for the interval.
    Flush,
    Head(oneshot::Sender<Head>),
    SetAside(Answer),
    /// After what could not be set aside need not be any more: whether all is well again.
    TryToWrite(Answer),
    BeginRebuild(Answer),
    Rows(Vec<Row>),
    Answers(Vec<KeptAnswer>),
    EndRebuild {
        revision: u64,
        cluster: String,
        done: Answer,
    },
    AbortRebuild,
}

struct Thread {
    writer: Writer,
    orders: mpsc::Receiver<Waiting>,
    progress: Arc<Progress>,
    tasks: Tasks,
    runtime: Handle,
    /// How long a change may wait for others.
    interval: Duration,
    rebuild: Rebuild,
    /// Whether the last try to set a copy aside failed.
    not_set_aside: bool,
}

/// How the rebuild under way has gone so far.
#[derive(Default)]
struct Rebuild {
    keys: u64,
    bytes: u64,
    shapeless: u64,
    failed: Option<anyhow::Error>,
}

/// What is written together.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    changes: usize,
    bytes: usize,
    /// Of the batches in the queue: taken until they are written.
    rooms: Vec<Room>,
}

impl Group {
    fn push(&mut self, batch: Batch, room: Room) {
        self.changes += batch.changes.len();
        self.bytes += batch.bytes();
        self.batches.push(batch);
        self.rooms.push(room);
    }

    fn is_full(&self) -> bool {
        self.changes >= CHANGES_MAX || self.bytes >= BYTES_MAX
    }
}

pub(crate) fn start(writer: Writer, progress: Arc<Progress>, config: &MirrorConfig, tasks: &Tasks) -> Orders {
    let (sender, orders) = Orders::new();
    let interval = match config.mode {
        MirrorMode::Sync => Duration::ZERO,
        MirrorMode::Async => Duration::from_millis(config.interval_ms),
    };
    let thread = Thread {
        writer,
        orders,
        progress,
        tasks: tasks.clone(),
        runtime: Handle::current(),
        interval,
        rebuild: Rebuild::default(),
        not_set_aside: false,
    };
    tasks.spawn_blocking("writer", move || thread.run());
    sender
}

impl Thread {
    fn run(mut self) {
        let mut untidy = false;
        while !self.tasks.is_stopping() {
            let waiting = self.runtime.block_on(timeout(IDLE, self.orders.recv()));
            let next = match waiting {
                Ok(Some(Waiting {
                    order: Order::Apply(first),
                    room,
                })) => self.gather(first, room),
                Ok(Some(other)) => Some(other),
                Ok(None) => return,
                Err(_idle) => None,
            };
            if let Some(next) = next {
                self.carry_out(next);
            }
            let tidied = self.writer.tidy();
            untidy = self.heed(&tidied, untidy);
        }
    }

    /// Writes this batch and what comes within the interval; answers an order of another kind that ended it.
    fn gather(&mut self, first: Batch, room: Room) -> Option<Waiting> {
        let until = first.arrived + self.interval;
        let mut group = Group::default();
        group.push(first, room);
        let mut next = None;
        while !group.is_full() {
            let waiting = if Instant::now() < until {
                let tasks = self.tasks.clone();
                self.runtime.block_on(async {
                    tokio::select! {
                        waiting = timeout_at(until, self.orders.recv()) => waiting.ok().flatten(),
                        () = tasks.stopping() => None,
                    }
                })
            } else {
                self.orders.try_recv().ok()
            };
            match waiting {
                Some(Waiting {
                    order: Order::Apply(batch),
                    room,
                }) => group.push(batch, room),
                other => {
                    next = other;
                    break;
                }
            }
        }
        self.write(&group);
        next
    }

    fn write(&mut self, group: &Group) {
        loop {
            match self.writer.apply(&group.batches) {
                Ok(shapeless) => {
                    let revision = self.writer.head().revision;
                    self.progress.update(|applied| {
                        applied.revision = revision;
                        applied.keys += group.changes as u64;
                        applied.bytes += group.bytes as u64;
                        applied.transactions += 1;
                        applied.shapeless += shapeless;
                        applied.trouble = None;
                    });
                    return;
                }
                Err(error) => self.say(&error),
            }
            let tasks = self.tasks.clone();
            let stopped = timeout(RETRY_PAUSE, async move { tasks.stopping().await });
            if self.runtime.block_on(stopped).is_ok() {
                return;
            }
        }
    }

    /// Once for each trouble, not for each try.
    fn say(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.progress.now().trouble.as_deref() != Some(&text) {
            tracing::error!(error = text, "the copy cannot be written; it is tried again");
        }
        self.progress.update(|applied| applied.trouble = Some(text));
    }

    /// What came of something that no change asked for; answers whether it failed. Where it had failed before and has
    /// not now, the trouble is over: no change may come that would tell that it can be written again.
    fn heed(&self, tried: &anyhow::Result<()>, had_failed: bool) -> bool {
        match tried {
            Err(error) => self.say(error),
            Ok(()) if had_failed => self.progress.update(|applied| applied.trouble = None),
            Ok(()) => {}
        }
        tried.is_err()
    }

    /// The room is taken until this is done.
    fn carry_out(&mut self, Waiting { order, room }: Waiting) {
        match order {
            // What waited was written before any other order.
            Order::Flush => {}
            Order::Apply(batch) => {
                let mut group = Group::default();
                group.push(batch, room);
                self.write(&group);
            }
            Order::Head(answer) => {
                answer.send(self.writer.head()).ok();
            }
            Order::SetAside(done) => {
                let set_aside = self.writer.set_aside();
                let incarnation = self.writer.head().incarnation;
                self.progress.update(|applied| applied.incarnation = incarnation);
                self.not_set_aside = self.heed(&set_aside, self.not_set_aside);
                done.send(set_aside).ok();
            }
            Order::TryToWrite(done) => {
                let written = self.writer.try_to_write();
                self.not_set_aside = self.heed(&written, true);
                done.send(written).ok();
            }
            Order::BeginRebuild(done) => {
                self.rebuild = Rebuild::default();
                let begun = self.writer.begin_rebuild();
                match &begun {
                    Ok(()) => self.note_rebuild(),
                    Err(error) => self.say(error),
                }
                done.send(begun).ok();
            }
            Order::Rows(rows) => self.rows(rows),
            Order::Answers(kept) => {
                if self.rebuild.failed.is_none()
                    && let Err(error) = self.writer.rebuild_answers(kept)
                {
                    self.give_up_rebuild(error);
                }
            }
            Order::EndRebuild {
                revision,
                cluster,
                done,
            } => {
                let ended = self.end_rebuild(revision, &cluster);
                // Whoever asked has gone away only if the process ends.
                done.send(ended).ok();
            }
            Order::AbortRebuild => {
                self.writer.abort_rebuild();
                self.progress.update(|applied| applied.rebuilding = None);
            }
        }
    }

    fn note_rebuild(&self) {
        let keys = self.rebuild.keys;
        self.progress.update(|applied| applied.rebuilding = Some(keys));
    }

    fn rows(&mut self, rows: Vec<Row>) {
        if self.rebuild.failed.is_some() {
            return;
        }
        self.rebuild.keys += rows.len() as u64;
        self.rebuild.bytes += rows.iter().map(Row::bytes).sum::<usize>() as u64;
        match self.writer.rebuild_rows(rows) {
            Ok(shapeless) => {
                self.rebuild.shapeless += shapeless;
                self.note_rebuild();
            }
            Err(error) => self.give_up_rebuild(error),
        }
    }

    /// At once, whatever is still to be read: on a full disk it holds the room of others. Whoever reads is told by
    /// `rebuilding`, since none of these orders is answered.
    fn give_up_rebuild(&mut self, error: anyhow::Error) {
        self.writer.abort_rebuild();
        self.progress.update(|applied| applied.rebuilding = None);
        self.say(&error);
        self.rebuild.failed = Some(error);
    }

    fn end_rebuild(&mut self, revision: u64, cluster: &str) -> anyhow::Result<()> {
        let Rebuild {
            keys,
            bytes,
            shapeless,
            failed,
        } = std::mem::take(&mut self.rebuild);
        let ended = match failed {
            Some(error) => Err(error),
            None => self.writer.end_rebuild(revision, cluster),
        };
        if let Err(error) = ended {
            self.writer.abort_rebuild();
            self.say(&error);
            self.progress.update(|applied| applied.rebuilding = None);
            return Err(error);
        }
        self.progress.begin_anew(revision);
        self.progress.update(|applied| {
            applied.revision = revision;
            applied.rebuilding = None;
            applied.keys += keys;
            applied.bytes += bytes;
            applied.shapeless += shapeless;
            applied.rebuilds += 1;
            applied.transactions += 1;
            applied.trouble = None;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
