//! One batch on its way to the leader: over one link to a remote one, or to Raft where this node leads.
//!
//! What surely was not proposed is tried again for a while, and so is what carries idempotency keys throughout;
//! anything else that may have been proposed is answered as unknown. Invariant: no copy leaves this node once the
//! command is so old that the store may have forgotten what it answered to another, also to one that came to another
//! node: of the time for which an answer is kept, the caller has one half for repeating, and a node the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use service::planted::{Bug, is_planted};
use service::time::Since;
use tokio::sync::OwnedSemaphorePermit;

use super::WriteError;
use super::fair_room::Given;
use super::permit::Permit;
use super::propose::Waiting;
use super::tries::Tries;
use crate::command::{Answer, Command, Once, Refusal, Reply, encode_commands};
use crate::raft::desk::Desk;
use crate::raft::network::link::AskError;
use crate::raft::network::message::{Ask, NotNow, Proposed, Told};
use crate::raft::view;

/// After a change of leader the old one may still answer what it had; longer than this it does not.
const GRACE: Duration = Duration::from_millis(150);
/// What carries idempotency keys is sent to the new leader rather than waited for any longer than this.
const GRACE_REPEATABLE: Duration = Duration::from_millis(10);
/// A key must outlive every repetition by far, or the second copy could meet a store that forgot the first.
const OUTLIVES_BY: Duration = Duration::from_secs(30);

/// Until when copies of a command, or of all in a batch, may leave this node.
#[derive(Clone, Copy)]
pub(super) struct Leaving {
    since: Since,
    within: Duration,
    came: Since,
    half: Option<Duration>,
}

impl Leaving {
    /// `within` that time `since` it was queued; and for half of the time that its answer is kept, from when it `came`: a
    /// copy that the caller gave to another node within the other half, after the first was done, still meets its answer.
    pub(super) fn of(command: &Command, since: Since, came: Since, within: Duration) -> Self {
        Self {
            since,
            within,
            came,
            half: command.once.as_ref().map(Once::half),
        }
    }

    pub(super) fn left(self) -> Duration {
        let left = self.within.saturating_sub(self.since.elapsed());
        let kept = self.half.map(|half| half.saturating_sub(self.came.elapsed()));
        kept.map_or(left, |kept| kept.min(left))
    }
}

/// As old as this no copy of a command leaves this node any more: it waited to be sent, and then for the answer.
pub(super) fn too_late(age_max: Duration) -> Duration {
    age_max * 2
}

/// Whether it has to leave sooner than one without a key.
pub(super) fn is_hurried(command: &Command, came: Since, age_max: Duration) -> bool {
    let half = command.once.as_ref().map(Once::half);
    half.is_some_and(|half| half.saturating_sub(came.elapsed()) < too_late(age_max))
}

pub(super) struct Sending {
    pub(super) desk: Arc<Desk>,
    pub(super) age_max: Duration,
    pub(super) bytes: Arc<AtomicUsize>,
    /// Whether the answer waits for mirrors.
    pub(super) held: bool,
}

impl Sending {
    /// `given` is what its commands were given of the room for kept answers, and is done with once they are answered.
    pub(super) async fn run(self, batch: VecDeque<Waiting>, permit: OwnedSemaphorePermit, given: Vec<Given>) {
        let within = too_late(self.age_max);
        let each = batch
            .iter()
            .map(|waiting| Leaving::of(&waiting.command, waiting.since, waiting.came, within));
        let soonest = each.min_by_key(|leaving| leaving.left());
        let leaving = soonest.expect("a batch has a command");
        let (commands, askers): (Vec<Command>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.command, (waiting.bytes, waiting.answer)))
            .unzip();
        let count = commands.len();
        let mut permit = Permit::held(permit);
        let repeatable = commands.iter().all(|command| self.is_repeatable(command));
        let encoded = encode_commands(&commands).into();
        let answer = self.send(encoded, (repeatable, leaving), &mut permit).await;
        drop(permit);
        drop(given);
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

    /// However often it is proposed, the state machine does it once and repeats the first answer.
    pub(super) fn is_repeatable(&self, command: &Command) -> bool {
        let once = command.once.as_ref();
        let ttl = once.map(|once| Duration::from_millis(once.ttl_ms));
        ttl.is_some_and(|ttl| ttl >= too_late(self.age_max) + OUTLIVES_BY)
    }

    /// Tries until the batch is decided, its fate is unknown, or its time is over. Answers too whether an earlier
    /// copy of it may still take effect.
    pub(super) async fn send(
        &self,
        commands: Bytes,
        (repeatable, leaving): (bool, Leaving),
        permit: &mut Permit,
    ) -> Result<(Proposed, bool), WriteError> {
        let deadline = tokio::time::Instant::now() + self.age_max;
        let grace = if repeatable { GRACE_REPEATABLE } else { GRACE };
        let mut tries = Tries::new();
        loop {
            // This process may have been held, or its machine slept; whoever asked may have asked others since.
            if leaving.left().is_zero() {
                return Err(tries.failure());
            }
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
            let given_up = tries.may_have_happened() && !repeatable && !is_planted(Bug::RepeatsWithoutKey);
            // An answer is waited for all the same; it is another copy that has to leave in time.
            let deadline = deadline.min(tokio::time::Instant::now() + leaving.left());
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
            // It surely did not happen, and there is no point in trying often.
            Err(AskError::TooLarge) => Err(NotNow::Overloaded),
            Err(AskError::NotSent(_)) => Err(NotNow::NotLeader),
        }
    }
}

/// What a command was told, `again` if an earlier copy of it may still take effect. What is kept under the key
/// holds for every copy; who was refused before the key was looked at learns nothing about the others.
pub(super) fn settled(reply: Reply, again: bool) -> Result<Reply, WriteError> {
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
    use std::pin::pin;

    use service::config::LimitsConfig;

    use super::super::propose::Proposals;
    use super::*;
    use crate::command::{Action, Actor, Expect};
    use crate::raft::bare::{Bare, DEADLINE, calm};

    const AGE_MAX: Duration = Duration::from_secs(2);

    fn keyed(ttl_ms: u64) -> Command {
        Command {
            actor: Actor::System,
            action: Action::Put {
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(b"v"),
                lease: 0,
                expect: Expect::Any,
            },
            once: Some(Once {
                key: "once".to_owned(),
                fingerprint: [0; 16],
                ttl_ms,
                room_bytes: 1 << 20,
            }),
        }
    }

    #[tokio::test]
    async fn what_lay_too_long_in_this_node_is_not_proposed_any_more() {
        let nodes = Bare::cluster(1).await;
        let sending = Sending {
            desk: Arc::clone(&nodes[0].desk),
            age_max: AGE_MAX,
            bytes: Arc::default(),
            held: false,
        };
        let send = async |ttl_ms: u64, before: Duration, age: Duration| {
            let command = keyed(ttl_ms);
            let since = Since::now().earlier(age);
            let leaving = Leaving::of(&command, since, since.earlier(before), too_late(AGE_MAX));
            let (encoded, mut permit) = (encode_commands(&[command]), Permit::none());
            sending.send(encoded.into(), (true, leaving), &mut permit).await
        };
        let none = Duration::ZERO;
        let late = Some(WriteError::NoLeader);
        assert_eq!(send(60_000, none, AGE_MAX * 2).await.err(), late);
        // By now another copy may have been done, and its answer forgotten.
        assert_eq!(send(4_000, none, AGE_MAX).await.err(), late);
        assert_eq!(
            send(4_000, AGE_MAX, none).await.err(),
            late,
            "it lay in its handler before"
        );
        assert_eq!(nodes[0].desk.machine.state().revision, 0);
        assert!(send(60_000, AGE_MAX, AGE_MAX).await.is_ok());
        assert_eq!(nodes[0].desk.machine.state().revision, 1);
        // What may wait for longer must be remembered for longer.
        for (age_max, ttl_ms, repeatable) in [
            (AGE_MAX, 60_000, true),
            (AGE_MAX, 33_999, false),
            (AGE_MAX * 30, 60_000, false),
            (AGE_MAX * 30, 150_000, true),
        ] {
            let sending = Sending {
                desk: Arc::clone(&nodes[0].desk),
                age_max,
                bytes: Arc::default(),
                held: false,
            };
            assert_eq!(
                sending.is_repeatable(&keyed(ttl_ms)),
                repeatable,
                "{age_max:?} {ttl_ms}"
            );
        }
        for node in nodes {
            node.end().await;
        }
    }

    #[tokio::test]
    async fn a_key_that_is_kept_for_a_moment_is_given_up_soon_and_hurries_nobody_else() {
        let node = Box::pin(Bare::start(1, &calm())).await;
        let limits = LimitsConfig {
            proposal_age_ms_max: 60_000,
            ..calm().limits
        };
        // Nobody leads, so all that is held is tried again.
        let proposals = Proposals::start(Arc::clone(&node.desk), &node.tasks, &limits);
        let lasting = Command {
            once: None,
            ..keyed(1)
        };
        let mut lasting = pin!(proposals.propose(lasting, Since::now()));
        let both = async {
            tokio::select! {
                biased;
                told = &mut lasting => panic!("it may wait for long: {told:?}"),
                told = proposals.propose(keyed(200), Since::now()) => told,
            }
        };
        let told = tokio::time::timeout(DEADLINE, both).await.unwrap();
        // Of it, too, if it was too old before it could be tried.
        assert!(
            matches!(told, Err(WriteError::NoLeader | WriteError::Overloaded)),
            "{told:?}"
        );
        node.end().await;
    }

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
