//! What all members' clients want written, gathered by the leader into one log entry.
//!
//! An entry costs two rounds of messages and three syncs whatever it holds, so the fewer the better: while one
//! is under way, the next one fills. It knows commands only as bytes with a count in front.
//! Invariant: every entry fits into a frame between nodes. One that did not could never be sent, and nothing behind it
//! would ever be committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use service::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

use super::hours::Hours;
use super::log::MESSAGE_BYTES_MAX;
use super::network::frame::FRAME_BYTES_MAX;
use super::network::message::NotNow;
use super::reads::Reads;
use super::types::Raft;
use super::under_way::{Going, UnderWay};
use super::view;
use crate::command::{Proposal, Reply, count_commands};
use crate::machine::host::Machine;
use crate::metrics::NodeMetrics;

/// Entries under way. Another one leaves only when it is as large as the last: small ones would cost more than
/// the wait saves.
const UNDER_WAY_MAX: usize = 3;
/// Batches of members waiting to be proposed; more are refused.
const QUEUE: usize = 1024;
/// Times the intake lets others run, and looks into its queue again, before it proposes.
const YIELDS: usize = 10;
/// An entry that holds so much takes in no further batch.
const ENTRY_BYTES_MAX: usize = 2 << 20;
/// What an entry and a message say beside commands.
const HEADS_BYTES_MAX: usize = 64 << 10;
/// The commands of one batch. So many fit into a frame also behind what an entry and a message may hold before them.
pub const COMMANDS_BYTES_MAX: usize = FRAME_BYTES_MAX - MESSAGE_BYTES_MAX - ENTRY_BYTES_MAX - HEADS_BYTES_MAX;
/// An entry that is not committed by then holds up no other: the majority may be gone.
const HOLD: Duration = Duration::from_millis(50);

struct Batch {
    commands: Bytes,
    count: usize,
    answer: oneshot::Sender<Result<Vec<Reply>, NotNow>>,
}

/// What the next entry will hold.
#[derive(Default)]
struct Filling {
    batches: Vec<Batch>,
    bytes: usize,
    commands: usize,
}

pub struct Intake {
    queue: mpsc::Sender<Batch>,
    /// The questions of reads, which are gathered too.
    pub reads: Reads,
}

struct Gatherer {
    raft: Raft,
    machine: Arc<Machine>,
    hours: Hours,
    tasks: Tasks,
    metrics: Arc<NodeMetrics>,
    queue: mpsc::Receiver<Batch>,
    /// Entries that hold up the next ones.
    under_way: Arc<UnderWay>,
    /// Commands in the entry proposed last.
    last: usize,
}

impl Filling {
    fn push(&mut self, batch: Batch) {
        self.bytes += batch.commands.len();
        self.commands += batch.count;
        self.batches.push(batch);
    }

    fn is_full(&self) -> bool {
        self.bytes >= ENTRY_BYTES_MAX
    }
}

impl Intake {
    pub fn start(raft: Raft, machine: Arc<Machine>, tasks: &Tasks, metrics: Arc<NodeMetrics>) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let reads = Reads::start(raft.clone(), tasks, Arc::clone(&metrics));
        let gatherer = Gatherer {
            raft,
            machine,
            hours: Hours::default(),
            tasks: tasks.clone(),
            metrics,
            queue,
            under_way: Arc::default(),
            last: 0,
        };
        tasks.spawn("intake", gatherer.run());
        Self { queue: sender, reads }
    }

    /// Proposes encoded commands, together with what others propose, and answers what applying them answered.
    pub async fn propose(&self, commands: Bytes) -> Result<Vec<Reply>, NotNow> {
        let Some(count) = count_commands(&commands) else {
            tracing::error!("commands of a member do not decode; they are not proposed");
            return Err(NotNow::Overloaded);
        };
        if commands.len() > COMMANDS_BYTES_MAX {
            let bytes = commands.len();
            tracing::error!(
                bytes,
                "commands of a member are too large to be sent to the others; they are not proposed"
            );
            return Err(NotNow::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let batch = Batch {
            commands,
            count,
            answer,
        };
        if self.queue.try_send(batch).is_err() {
            return Err(NotNow::Overloaded);
        }
        // Dropped unanswered only when the node stops, perhaps in the middle of it.
        answered.await.unwrap_or(Err(NotNow::Unknown))
    }
}

impl Gatherer {
    async fn run(mut self) {
        let mut filling = Filling::default();
        loop {
            while !self.may_leave(&filling) {
                let batch = tokio::select! {
                    batch = self.queue.recv(), if !filling.is_full() => match batch {
                        Some(batch) => Some(batch),
                        None => return,
                    },
                    () = self.under_way.fewer() => None,
                    () = self.tasks.stopping() => return,
                };
                if let Some(batch) = batch {
                    filling.push(batch);
                }
            }
            self.gather(&mut filling).await;
            self.last = filling.commands;
            let going = Going::begin(&self.under_way);
            let batches = std::mem::take(&mut filling).batches;
            let lead = view::own_lead(&self.raft);
            let at_ms = self.hours.now_ms(lead, self.machine.now_ms());
            let writing = write(
                self.raft.clone(),
                Arc::clone(&self.metrics),
                at_ms,
                batches,
                going,
            );
            self.tasks.spawn("proposal", writing);
        }
    }

    fn may_leave(&self, filling: &Filling) -> bool {
        match self.under_way.count() {
            _ if filling.batches.is_empty() => false,
            0 => true,
            entries => entries < UNDER_WAY_MAX && (filling.is_full() || filling.commands >= self.last),
        }
    }

    /// Takes what comes in while others run.
    async fn gather(&mut self, filling: &mut Filling) {
        for _ in 0..YIELDS {
            while !filling.is_full()
                && let Ok(batch) = self.queue.try_recv()
            {
                filling.push(batch);
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn write(raft: Raft, metrics: Arc<NodeMetrics>, at_ms: u64, batches: Vec<Batch>, going: Going) {
    let proposal = Proposal::merged(at_ms, batches.iter().map(|batch| batch.commands.as_ref()));
    let started = Instant::now();
    let mut writing = std::pin::pin!(raft.client_write(proposal));
    let written = if let Ok(written) = tokio::time::timeout(HOLD, &mut writing).await {
        written
    } else {
        drop(going);
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
    for batch in batches {
        let share = replies
            .as_mut()
            .map(|replies| replies.by_ref().take(batch.count).collect())
            .map_err(|error| *error);
        // The asker is gone; the write stands all the same.
        batch.answer.send(share).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, Actor, Command, Expect, Once, encode_commands};
    use crate::raft::bare::Bare;
    use crate::raft::view::RaftView;

    fn put(value_bytes: usize, once: Option<Once>) -> Bytes {
        let command = Command {
            actor: Actor::System,
            action: Action::Put {
                key: Bytes::from_static(b"k"),
                value: vec![b'x'; value_bytes].into(),
                lease: 0,
                expect: Expect::Any,
            },
            once,
        };
        encode_commands(&[command]).into()
    }

    #[tokio::test]
    async fn what_could_not_be_sent_is_not_proposed() {
        let nodes = Bare::cluster(1).await;
        let desk = &nodes[0].desk;
        let before = desk.vote_and_last().await.unwrap().1;
        let refused = desk.intake.propose(put(COMMANDS_BYTES_MAX, None)).await;
        assert_eq!(refused, Err(NotNow::Overloaded));
        assert_eq!(desk.vote_and_last().await.unwrap().1, before, "it is in the log");
        let replies = desk.intake.propose(put(1, None)).await.unwrap();
        assert_eq!(replies.len(), 1);
        for node in nodes {
            node.end().await;
        }
    }

    /// While another led, which began where the clock stood, this node's own clock went on from its lead of before.
    #[tokio::test]
    async fn an_answer_is_kept_for_its_time_also_when_the_lead_comes_back() {
        let nodes = Bare::cluster(2).await;
        let once = Once {
            key: "once".to_owned(),
            fingerprint: [1; 16],
            // Far less than it takes to hand over.
            ttl_ms: 1,
            room_bytes: 1 << 20,
        };
        let [one, two] = [&nodes[0], &nodes[1]];
        let leads = |view: &RaftView| view.is_leader() && view.applied == view.last_log;
        one.desk.intake.propose(put(1, None)).await.unwrap();
        for (old, new, heir, replayed) in [(one, two, 2, false), (two, one, 1, true)] {
            old.desk.hand_over(heir).await.unwrap();
            new.knows("that it leads and has applied all", leads).await;
            let replies = new.desk.intake.propose(put(1, Some(once.clone()))).await.unwrap();
            assert_eq!(replies[0].replayed, replayed, "under node {heir}");
        }
        for node in nodes {
            node.end().await;
        }
    }
}
