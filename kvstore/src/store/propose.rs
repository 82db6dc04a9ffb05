//! Many clients' commands in one batch, on its way to the leader.
//!
//! Commands queue up while earlier batches are under way and leave together: no timer, no waiting when
//! there is nothing to wait for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use service::config::LimitsConfig;
use service::tasks::Tasks;
use service::time::Since;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::WriteError;
use super::fair_room::FairRoom;
use super::permit::Permit;
use super::sending::{Leaving, Sending, is_hurried, settled, too_late};
use super::weight::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, BATCH_READING_MAX, reads, weigh};
use crate::command::{Command, Reply, encode_commands};
use crate::raft::desk::Desk;

/// Batches under way: some wait at the leader for its next entry while others are in it.
pub(super) const IN_FLIGHT: usize = 4;
/// Times the batcher lets others run, and looks into the queue again, before it sends a batch off.
const YIELDS: usize = 4;

pub(super) struct Waiting {
    pub(super) command: Command,
    pub(super) bytes: usize,
    pub(super) since: Since,
    /// When this node got it.
    pub(super) came: Since,
    pub(super) answer: oneshot::Sender<Result<Reply, WriteError>>,
}

pub(super) struct Proposals {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    room: Arc<FairRoom>,
    alone: Sending,
}

struct Batcher {
    desk: Arc<Desk>,
    tasks: Tasks,
    queue: mpsc::Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
    room: Arc<FairRoom>,
    age_max: Duration,
}

impl Proposals {
    pub(super) fn start(desk: Arc<Desk>, tasks: &Tasks, limits: &LimitsConfig) -> Self {
        let (sender, queue) = mpsc::channel(limits.proposals_max);
        let bytes = Arc::new(AtomicUsize::new(0));
        let room = Arc::new(FairRoom::new(Arc::clone(&desk.machine)));
        let age_max = Duration::from_millis(limits.proposal_age_ms_max);
        let alone = Sending {
            desk: Arc::clone(&desk),
            age_max,
            bytes: Arc::clone(&bytes),
            held: false,
        };
        let batcher = Batcher {
            desk,
            tasks: tasks.clone(),
            queue,
            bytes: Arc::clone(&bytes),
            room: Arc::clone(&room),
            age_max,
        };
        tasks.spawn("proposals", batcher.run());
        Self {
            queue: sender,
            bytes,
            bytes_max: limits.proposals_bytes_max,
            room,
            alone,
        }
    }

    /// One command that waits for no mirror, and that none can block.
    pub(super) async fn propose_unheld(
        &self,
        mut command: Command,
        came: Since,
    ) -> Result<Reply, WriteError> {
        weigh(&command)?;
        let _given = self.room.give(&mut command);
        let repeatable = self.alone.is_repeatable(&command);
        let leaving = Leaving::of(&command, Since::now(), came, too_late(self.alone.age_max));
        let encoded = encode_commands(&[command]).into();
        let mut permit = Permit::none();
        let sent = self.alone.send(encoded, (repeatable, leaving), &mut permit);
        let (proposed, again) = sent.await?;
        let reply = proposed.replies.into_iter().next();
        settled(reply.ok_or(WriteError::OutcomeUnknown)?, again)
    }

    /// `came` is when this node got it.
    pub(super) async fn propose(&self, command: Command, came: Since) -> Result<Reply, WriteError> {
        let bytes = weigh(&command)?;
        let queued = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The largest request, whose key and parts weigh more than its bytes, must find room when nothing else waits.
        if queued > 0 && queued + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(WriteError::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            command,
            bytes,
            since: Since::now(),
            came,
            answer,
        };
        if let Err(refused) = self.queue.try_send(waiting) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(match refused {
                mpsc::error::TrySendError::Full(_) => WriteError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => WriteError::Stopping,
            });
        }
        answered.await.unwrap_or(Err(WriteError::OutcomeUnknown))
    }
}

impl Batcher {
    async fn run(mut self) {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        loop {
            let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
                return;
            };
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = self.tasks.stopping() => None,
            };
            let Some(first) = first else {
                return self.refuse_the_rest();
            };
            let gathered = self.gather(first).await;
            let [hurried, others] = apart(gathered, self.age_max);
            if hurried.is_empty() {
                self.send_off(others, permit);
                continue;
            }
            self.send_off(hurried, permit);
            let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
                return;
            };
            self.send_off(others, permit);
        }
    }

    fn send_off(&self, mut batch: VecDeque<Waiting>, permit: OwnedSemaphorePermit) {
        if batch.is_empty() {
            return;
        }
        self.desk.metrics.commands.inc_by(batch.len() as u64);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a batch has far fewer commands than 2^52"
        )]
        self.desk.metrics.proposal_commands.observe(batch.len() as f64);
        let sending = Sending {
            desk: Arc::clone(&self.desk),
            age_max: self.age_max,
            bytes: Arc::clone(&self.bytes),
            held: true,
        };
        // Not before they leave: by now more is known of what earlier ones were answered.
        let commands = batch.iter_mut().map(|waiting| &mut waiting.command);
        let given = commands.filter_map(|command| self.room.give(command)).collect();
        self.tasks.spawn("proposal", sending.run(batch, permit, given));
    }

    /// Takes what is queued, letting handlers that are ready add theirs.
    async fn gather(&mut self, first: Waiting) -> VecDeque<Waiting> {
        let (mut batch, mut bytes, mut reading, mut next) = (VecDeque::new(), 0, 0, Some(first));
        for round in 0..=YIELDS {
            while let Some(waiting) = next.take().or_else(|| self.queue.try_recv().ok()) {
                let Waiting { since, came, .. } = waiting;
                let stays = Leaving::of(&waiting.command, since, came, self.age_max);
                if stays.left().is_zero() {
                    finish(&self.bytes, waiting, Err(WriteError::Overloaded));
                    continue;
                }
                bytes += waiting.bytes;
                reading += usize::from(reads(&waiting.command));
                batch.push_back(waiting);
                if bytes >= BATCH_BYTES_MAX
                    || batch.len() >= BATCH_COMMANDS_MAX
                    || reading >= BATCH_READING_MAX
                {
                    return batch;
                }
            }
            if round < YIELDS {
                tokio::task::yield_now().await;
            }
        }
        batch
    }

    fn refuse_the_rest(&mut self) {
        self.queue.close();
        while let Ok(waiting) = self.queue.try_recv() {
            finish(&self.bytes, waiting, Err(WriteError::Stopping));
        }
    }
}

/// First those that have to leave soon, in a batch of their own: one that cannot be sent in time is given up whole.
fn apart(batch: VecDeque<Waiting>, age_max: Duration) -> [VecDeque<Waiting>; 2] {
    let hurries = |waiting: &Waiting| is_hurried(&waiting.command, waiting.came, age_max);
    if !batch.iter().any(hurries) {
        return [VecDeque::new(), batch];
    }
    let (hurried, others) = batch.into_iter().partition(hurries);
    [hurried, others]
}

fn finish(bytes: &AtomicUsize, waiting: Waiting, answer: Result<Reply, WriteError>) {
    bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
    // A client that left needs no answer; the write stands all the same.
    waiting.answer.send(answer).ok();
}
