//! Changes to who belongs to the cluster and who leads it.
//!
//! They are no commands of the state machine, so an idempotency key is kept around them: one answer is kept before the
//! change begins and one when it is done. A repeat that finds the first and not the second goes on with the change, once
//! a twin that makes it just now has ended. What was refused is tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::{LEADER_WAIT, Level, ReadError, Store, WriteError};
use crate::command::{Action, Actor, Answer, Command, Once, Refusal, Reply, Txn};
use crate::machine::base::Base as _;
use crate::machine::state::KeptId;
use crate::raft::network::link::AskError;
use crate::raft::network::message::{Ask, MemberChange, MemberRefused, Told};
use crate::raft::view;

const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// While another change is under way.
const TURN_PAUSE: Duration = Duration::from_millis(100);
/// How long a change under a key waits for one that is under way, which is told as unknown after a shorter time.
const TURN: Duration = Duration::from_secs(6);
/// How long an answer waits for this node to know what the leader has done.
const KNOWN: Duration = Duration::from_millis(500);

/// Behind the caller's key, which holds no space: what is known of the change.
const BEGUN: &str = "";
/// The member that is to be removed was there before it was removed under this key.
const THERE: &str = " there";
const DONE: &str = " done";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    #[error("no leader is known")]
    NoLeader,
    #[error("no such member")]
    NotFound,
    #[error("it is a member already")]
    Exists,
    #[error("the last voter cannot go")]
    LastVoter,
    #[error("it lacks {lag} entries")]
    NotCaughtUp { lag: u64 },
    #[error("another change is under way")]
    InProgress,
    #[error("the member does not answer")]
    Unreachable,
    #[error("the number belongs to another disk")]
    DiskReused,
    #[error("the change may have happened, or may still")]
    Unknown,
    #[error("the idempotency key could not be used")]
    Key(Refusal),
    #[error("the idempotency key could not be written down")]
    Write(#[from] WriteError),
    #[error("the idempotency key could not be looked up")]
    Read(#[from] ReadError),
}

/// Who repeats a change under which key.
pub struct Keyed {
    pub owner: String,
    pub actor: Actor,
    pub once: Once,
}

impl Store {
    /// Makes the change, under a key at most once. Whether it had been begun before.
    pub async fn change_members(
        &self,
        change: MemberChange,
        keyed: Option<Keyed>,
    ) -> Result<bool, MemberError> {
        let Some(keyed) = keyed else {
            self.change(change.clone()).await?;
            self.know(&change).await;
            return Ok(false);
        };
        let begun = self.note(&keyed, BEGUN).await?;
        if let Answer::Refused(refusal) = begun.answer {
            return Err(MemberError::Key(refusal));
        }
        if begun.replayed && self.noted(&keyed, DONE).await? {
            return Ok(true);
        }
        let removed = match &change {
            MemberChange::Remove { id } => Some(*id),
            _ => None,
        };
        if let Some(id) = removed
            && view::view(&self.inner.desk.raft).members.contains_key(&id)
        {
            self.note(&keyed, THERE).await?;
        }
        match self.change_in_turn(&change).await {
            // It went at an earlier attempt.
            Err(MemberError::NotFound) if removed.is_some() && self.noted(&keyed, THERE).await? => {}
            // That which is under way may be this very change.
            Err(MemberError::InProgress) if begun.replayed => return Err(MemberError::Unknown),
            outcome => outcome?,
        }
        // Lost, a repeat makes the change again, and finds it made.
        self.note(&keyed, DONE).await.ok();
        self.know(&change).await;
        Ok(begun.replayed)
    }

    /// Waits, though not for long, until this node knows of the change: the leader may have been ahead of it.
    async fn know(&self, change: &MemberChange) {
        let desk = &self.inner.desk;
        let known = view::becomes(&desk.raft, |view| match change {
            MemberChange::Add { id, .. } => view.members.contains_key(id),
            MemberChange::Promote { id } => view.is_voter(*id),
            MemberChange::Remove { id } => !view.members.contains_key(id),
            MemberChange::Lead { to } => desk.leader_to_tell(view) == Some(*to),
        });
        // If it was undone meanwhile, or this node was removed by it, that is never so.
        tokio::time::timeout(KNOWN, known).await.ok();
    }

    async fn noted(&self, keyed: &Keyed, what: &str) -> Result<bool, MemberError> {
        let point = self.read_point(Level::Linearizable).await?;
        let id = KeptId {
            owner: keyed.owner.clone(),
            key: format!("{}{what}", keyed.once.key),
        };
        Ok(point.generation.db().kept(&id).is_some())
    }

    /// Keeps an answer that says nothing but that it was kept.
    async fn note(&self, keyed: &Keyed, what: &str) -> Result<Reply, WriteError> {
        let once = Once {
            key: format!("{}{what}", keyed.once.key),
            ..keyed.once.clone()
        };
        // A change of members waits for no mirror.
        let note = Command {
            actor: keyed.actor,
            action: Action::Txn(Txn::default()),
            once: Some(once),
        };
        self.inner.proposals.propose_unheld(note).await
    }

    /// Makes the change once no other is under way; twins that meet halfway cannot tell whose that is.
    async fn change_in_turn(&self, change: &MemberChange) -> Result<(), MemberError> {
        let deadline = Instant::now() + TURN;
        loop {
            match self.change(change.clone()).await {
                Err(MemberError::InProgress) if Instant::now() < deadline => {
                    tokio::time::sleep(TURN_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks whoever leads until somebody does.
    async fn change(&self, change: MemberChange) -> Result<(), MemberError> {
        let desk = &self.inner.desk;
        let deadline = Instant::now() + 2 * LEADER_WAIT;
        loop {
            let view = view::view(&desk.raft);
            let asked = view
                .leader
                .and_then(|leader| Some((leader, view.members.get(&leader)?)));
            let refused = match asked {
                None => MemberRefused::NotLeader,
                Some((leader, _)) if leader == view.me => match desk.change_member(change.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => refused,
                },
                Some((leader, member)) => {
                    let link = desk.peers.link(leader, &member.peer_address);
                    match link.ask(&Ask::Member(change.clone())).await {
                        Ok(Told::Member(Ok(()))) => return Ok(()),
                        Ok(Told::Member(Err(refused))) => refused,
                        Err(AskError::NotSent(_)) => MemberRefused::NotLeader,
                        Ok(_) | Err(AskError::Lost) => MemberRefused::Unknown,
                    }
                }
            };
            if refused != MemberRefused::NotLeader || Instant::now() >= deadline {
                return Err(refused.into());
            }
            let changes = view::leader_changes(&desk.raft, view.leader);
            tokio::time::timeout(RETRY_PAUSE, changes).await.ok();
        }
    }
}

impl From<MemberRefused> for MemberError {
    fn from(refused: MemberRefused) -> Self {
        match refused {
            MemberRefused::NotLeader => Self::NoLeader,
            MemberRefused::NotFound => Self::NotFound,
            MemberRefused::Exists => Self::Exists,
            MemberRefused::LastVoter => Self::LastVoter,
            MemberRefused::NotCaughtUp { lag } => Self::NotCaughtUp { lag },
            MemberRefused::InProgress => Self::InProgress,
            MemberRefused::Unreachable => Self::Unreachable,
            MemberRefused::DiskReused => Self::DiskReused,
            MemberRefused::Unknown => Self::Unknown,
        }
    }
}
