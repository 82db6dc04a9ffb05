//! What all members' clients want written, gathered by the leader into one log entry.
//!
//! An entry costs two rounds of messages and three syncs whatever it holds, so the fewer the better: while one
//! is under way, the next one fills. It knows commands only as bytes with a count in front.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use service::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::network::message::NotNow;
use super::types::Raft;
use crate::command::{Proposal, Reply, merge_commands};
use crate::metrics::NodeMetrics;

/// Entries under way. With one, the next is as large as what came in meanwhile; two were no faster and cost more.
const UNDER_WAY: usize = 1;
/// Batches of members waiting to be proposed; more are refused.
const QUEUE: usize = 1024;
/// Times the intake lets others run, and looks into its queue again, before it proposes.
const YIELDS: usize = 10;
const ENTRY_BYTES_MAX: usize = 2 << 20;
/// An entry that is not committed by then holds up no other: the majority may be gone.
const HOLD: Duration = Duration::from_millis(50);

struct Batch {
    commands: Bytes,
    answer: oneshot::Sender<Result<Vec<Reply>, NotNow>>,
}

pub struct Intake {
    queue: mpsc::Sender<Batch>,
}

struct Gatherer {
    raft: Raft,
    tasks: Tasks,
    metrics: Arc<NodeMetrics>,
    queue: mpsc::Receiver<Batch>,
}

impl Intake {
    pub fn start(raft: Raft, tasks: &Tasks, metrics: Arc<NodeMetrics>) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let gatherer = Gatherer {
            raft,
            tasks: tasks.clone(),
            metrics,
            queue,
        };
        tasks.spawn("intake", gatherer.run());
        Self { queue: sender }
    }

    /// Proposes encoded commands, together with what others propose, and answers what applying them answered.
    pub async fn propose(&self, commands: Bytes) -> Result<Vec<Reply>, NotNow> {
        let (answer, answered) = oneshot::channel();
        if self.queue.try_send(Batch { commands, answer }).is_err() {
            return Err(NotNow::Overloaded);
        }
        // Dropped unanswered only when the node stops, perhaps in the middle of it.
        answered.await.unwrap_or(Err(NotNow::Unknown))
    }
}

impl Gatherer {
    async fn run(mut self) {
        let entries = Arc::new(Semaphore::new(UNDER_WAY));
        loop {
            let Ok(permit) = Arc::clone(&entries).acquire_owned().await else {
                return;
            };
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = self.tasks.stopping() => None,
            };
            let Some(first) = first else { return };
            let batches = self.gather(first).await;
            let writing = write(self.raft.clone(), Arc::clone(&self.metrics), batches, permit);
            self.tasks.spawn("proposal", writing);
        }
    }

    async fn gather(&mut self, first: Batch) -> Vec<Batch> {
        let (mut batches, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        for round in 0..=YIELDS {
            while let Some(batch) = next.take().or_else(|| self.queue.try_recv().ok()) {
                bytes += batch.commands.len();
                batches.push(batch);
                if bytes >= ENTRY_BYTES_MAX {
                    return batches;
                }
            }
            if round < YIELDS {
                tokio::task::yield_now().await;
            }
        }
        batches
    }
}

async fn write(raft: Raft, metrics: Arc<NodeMetrics>, batches: Vec<Batch>, permit: OwnedSemaphorePermit) {
    let merged = match merge_commands(batches.iter().map(|batch| batch.commands.as_ref())) {
        Ok(merged) => merged,
        Err(error) => {
            // A member sent what no version of this code writes; nothing of it is proposed.
            tracing::error!(%error, "commands of a member do not decode");
            return;
        }
    };
    let started = Instant::now();
    let proposal = Proposal::new(service::time::now_ms(), &merged.bytes);
    let mut writing = std::pin::pin!(raft.client_write(proposal));
    let written = if let Ok(written) = tokio::time::timeout(HOLD, &mut writing).await {
        written
    } else {
        drop(permit);
        writing.await
    };
    let outcome = match written {
        Ok(written) => {
            metrics.proposals.inc();
            metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            Ok(written.data.0)
        }
        // Refused before it was appended: nothing happened.
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(NotNow::NotLeader),
        // Appended, and then cut off or lost sight of: another leader may have committed it.
        Err(_) => Err(NotNow::Unknown),
    };
    let mut replies = outcome.map(Vec::into_iter);
    for (batch, count) in batches.into_iter().zip(merged.counts) {
        let share = replies
            .as_mut()
            .map(|replies| replies.by_ref().take(count).collect())
            .map_err(|error| *error);
        // The asker is gone; the write stands all the same.
        batch.answer.send(share).ok();
    }
}
