//! Many clients' commands in one batch, on its way to the leader.
//!
//! Commands queue up while earlier batches are under way and leave together: no timer, no waiting when
//! there is nothing to wait for. A batch goes to the local leader or over one link to the remote one. What
//! surely was not proposed is tried again for a while, and so is what carries idempotency keys throughout;
//! anything else that may have been proposed is answered as unknown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use service::config::LimitsConfig;
use service::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::WriteError;
use super::permit::Permit;
use super::tries::Tries;
use super::weight::{BATCH_READING_MAX, reads, weight};
use crate::command::{Answer, Command, Refusal, Reply, encode_commands};
use crate::raft::desk::Desk;
use crate::raft::network::link::AskError;
use crate::raft::network::message::{Ask, NotNow, Proposed, Told};
use crate::raft::view;

/// Batches under way: some wait at the leader for its next entry while others are in it.
pub(super) const IN_FLIGHT: usize = 4;
/// Times the batcher lets others run, and looks into the queue again, before it sends a batch off.
const YIELDS: usize = 4;
const BATCH_COMMANDS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// After a change of leader the old one may still answer what it had; longer than this it does not.
const GRACE: Duration = Duration::from_millis(150);
/// What carries idempotency keys is sent to the new leader rather than waited for any longer than this.
const GRACE_REPEATABLE: Duration = Duration::from_millis(10);
/// A key must outlive every repetition by far, or the second copy could meet a store that forgot the first.
const REPEATABLE_TTL_MS_MIN: u64 = 30_000;

struct Waiting {
    command: Command,
    bytes: usize,
    since: Instant,
    answer: oneshot::Sender<Result<Reply, WriteError>>,
}

pub(super) struct Proposals {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    alone: Sending,
}

struct Batcher {
    desk: Arc<Desk>,
    tasks: Tasks,
    queue: mpsc::Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
    age_max: Duration,
}

impl Proposals {
    pub(super) fn start(desk: Arc<Desk>, tasks: &Tasks, limits: &LimitsConfig) -> Self {
        let (sender, queue) = mpsc::channel(limits.proposals_max);
        let bytes = Arc::new(AtomicUsize::new(0));
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
            age_max,
        };
        tasks.spawn("proposals", batcher.run());
        Self {
            queue: sender,
            bytes,
            bytes_max: limits.proposals_bytes_max,
            alone,
        }
    }

    /// One command that waits for no mirror, and that none can block.
    pub(super) async fn propose_unheld(&self, command: Command) -> Result<Reply, WriteError> {
        let repeatable = is_repeatable(&command);
        let encoded = encode_commands(&[command]).into();
        let (proposed, again) = self.alone.send(encoded, repeatable, &mut Permit::none()).await?;
        let reply = proposed.replies.into_iter().next();
        settled(reply.ok_or(WriteError::OutcomeUnknown)?, again)
    }

    pub(super) async fn propose(&self, command: Command) -> Result<Reply, WriteError> {
        let bytes = weight(&command);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(WriteError::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            command,
            bytes,
            since: Instant::now(),
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
            let batch = self.gather(first).await;
            if !batch.is_empty() {
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
                self.tasks.spawn("proposal", sending.run(batch, permit));
            }
        }
    }

    /// Takes what is queued, letting handlers that are ready add theirs.
    async fn gather(&mut self, first: Waiting) -> VecDeque<Waiting> {
        let (mut batch, mut bytes, mut reading, mut next) = (VecDeque::new(), 0, 0, Some(first));
        for round in 0..=YIELDS {
            while let Some(waiting) = next.take().or_else(|| self.queue.try_recv().ok()) {
                if waiting.since.elapsed() > self.age_max {
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

fn finish(bytes: &AtomicUsize, waiting: Waiting, answer: Result<Reply, WriteError>) {
    bytes.fetch_sub(waiting.bytes, Ordering::Relaxed);
    // A client that left needs no answer; the write stands all the same.
    waiting.answer.send(answer).ok();
}

struct Sending {
    desk: Arc<Desk>,
    age_max: Duration,
    bytes: Arc<AtomicUsize>,
    /// Whether the answer waits for mirrors.
    held: bool,
}

impl Sending {
    async fn run(self, batch: VecDeque<Waiting>, permit: OwnedSemaphorePermit) {
        let (commands, askers): (Vec<Command>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.command, (waiting.bytes, waiting.answer)))
            .unzip();
        let count = commands.len();
        let mut permit = Permit::held(permit);
        let repeatable = commands.iter().all(is_repeatable);
        let encoded = encode_commands(&commands).into();
        let answer = self.send(encoded, repeatable, &mut permit).await;
        drop(permit);
        let mut replies = match answer {
            Ok((Proposed { replies, mirrors }, again)) if replies.len() == count => {
                let replies = replies.into_iter().map(|reply| Reply { mirrors, ..reply });
                replies.map(|reply| settled(reply, again)).collect()
            }
            Ok(_) => vec![Err(WriteError::OutcomeUnknown); count],
            Err(error) => vec![Err(error); count],
        };
        let unknown = replies
            .iter()
            .filter(|reply| matches!(reply, Err(WriteError::OutcomeUnknown)));
        self.desk.metrics.unknown_outcomes.inc_by(unknown.count() as u64);
        for (bytes, asker) in askers.into_iter().rev() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            asker.send(replies.pop().expect("one reply for each")).ok();
        }
    }

    /// Tries until the batch is decided, its fate is unknown, or its time is over. Answers too whether an earlier
    /// copy of it may still take effect.
    async fn send(
        &self,
        commands: Bytes,
        repeatable: bool,
        permit: &mut Permit,
    ) -> Result<(Proposed, bool), WriteError> {
        let deadline = tokio::time::Instant::now() + self.age_max;
        let grace = if repeatable { GRACE_REPEATABLE } else { GRACE };
        let mut tries = Tries::new();
        loop {
            let leader = view::leader(&self.desk.raft);
            let tried = match leader {
                Some(leader) => self.send_to(leader, &commands, (deadline, grace), permit).await,
                None => Err(NotNow::NotLeader),
            };
            let why = match tried {
                Ok(proposed) => return Ok((proposed, tries.may_have_happened())),
                Err(why) => why,
            };
            if why == NotNow::Overloaded && leader != Some(self.desk.peers.trust().identity.id()) {
                // What frees room, or keeps a lease alive, may pass meanwhile.
                permit.lend();
            }
            tries.refused(why)?;
            let given_up = tries.may_have_happened() && !repeatable;
            if given_up || tokio::time::Instant::now() + tries.pause() >= deadline {
                return Err(tries.failure());
            }
            // Woken by the new leader, or after a moment if this node is the last to hear of it.
            tokio::time::timeout(tries.pause(), view::leader_changes(&self.desk.raft, leader))
                .await
                .ok();
            // Room comes for all that rest at the same moment, and must not be taken by them alone.
            let again = tokio::time::timeout_at(deadline, permit.take_again());
            again.await.map_err(|_elapsed| tries.failure())?;
        }
    }

    async fn send_to(
        &self,
        leader: u64,
        commands: &Bytes,
        (deadline, grace): (tokio::time::Instant, Duration),
        permit: &mut Permit,
    ) -> Result<Proposed, NotNow> {
        let proposing = async {
            let me = self.desk.peers.trust().identity.id();
            if leader == me && self.held {
                self.desk.propose(commands.clone()).await
            } else if leader == me {
                self.desk.propose_unheld(commands.clone()).await
            } else {
                self.forward(leader, commands.clone()).await
            }
        };
        let given_up = async {
            let changed =
                tokio::time::timeout_at(deadline, view::leader_changes(&self.desk.raft, Some(leader))).await;
            if changed.is_ok() {
                // The next batch need not wait for what a silent leader may still say.
                permit.give_up();
                tokio::time::sleep(grace).await;
            }
        };
        tokio::select! {
            biased;
            answer = proposing => answer,
            // The leader is silent or was replaced: it may have done its work all the same.
            () = given_up => Err(NotNow::Unknown),
        }
    }

    async fn forward(&self, leader: u64, commands: Bytes) -> Result<Proposed, NotNow> {
        let Some(address) = view::peer_address(&self.desk.raft, leader) else {
            return Err(NotNow::NotLeader);
        };
        let link = self.desk.peers.link(leader, &address);
        let ask = if self.held {
            Ask::Propose(commands)
        } else {
            Ask::ProposeUnheld(commands)
        };
        match link.ask(&ask).await {
            Ok(Told::Proposed(answer)) => answer,
            Ok(_) | Err(AskError::Lost) => Err(NotNow::Unknown),
            Err(AskError::NotSent(_)) => Err(NotNow::NotLeader),
        }
    }
}

/// However often it is proposed, the state machine does it once and repeats the first answer.
fn is_repeatable(command: &Command) -> bool {
    let once = command.once.as_ref();
    once.is_some_and(|once| once.ttl_ms >= REPEATABLE_TTL_MS_MIN)
}

/// What a command was told, `again` if an earlier copy of it may still take effect. What is kept under the key
/// holds for every copy; who was refused before the key was looked at learns nothing about the others.
fn settled(reply: Reply, again: bool) -> Result<Reply, WriteError> {
    let Answer::Refused(refusal) = &reply.answer else {
        return Ok(reply);
    };
    let kept = !matches!(
        refusal,
        Refusal::Unauthorized | Refusal::Forbidden { .. } | Refusal::RootOnly | Refusal::AnswersFull
    );
    if again && !kept {
        return Err(WriteError::OutcomeUnknown);
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_not_kept_decides_nothing_about_an_earlier_copy() {
        let reply = |answer| Reply {
            revision: 7,
            replayed: false,
            answer,
            mirrors: crate::command::MirrorsWere::None,
        };
        let refused = |refusal| reply(Answer::Refused(refusal));
        let forbidden = Refusal::Forbidden { key: "k".into() };
        for refusal in [
            Refusal::Unauthorized,
            forbidden,
            Refusal::RootOnly,
            Refusal::AnswersFull,
        ] {
            assert_eq!(
                settled(refused(refusal.clone()), false),
                Ok(refused(refusal.clone()))
            );
            assert_eq!(settled(refused(refusal), true), Err(WriteError::OutcomeUnknown));
        }
        // Kept under the key, so no copy was told anything else.
        for answer in [
            Answer::Refused(Refusal::Precondition { modified: 3 }),
            Answer::Refused(Refusal::KeyReused),
            Answer::Done,
        ] {
            assert_eq!(settled(reply(answer.clone()), true), Ok(reply(answer)));
        }
    }
}
