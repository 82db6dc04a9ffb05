//! Changes to who belongs to the cluster and who leads it.
//!
//! They are no commands of the state machine, so an idempotency key is kept around them: one answer is kept before the
//! change begins and one when it is done. A repeat that finds the first and not the second goes on with the change.

use std::time::Duration;

use super::{LEADER_WAIT, Level, ReadError, Store, WriteError};
use crate::command::{Action, Actor, Answer, Command, Once, Refusal, Txn};
use crate::machine::base::Base as _;
use crate::machine::state::KeptId;
use crate::raft::network::link::AskError;
use crate::raft::network::message::{Ask, MemberChange, MemberRefused, Told};
use crate::raft::view;

const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Behind the caller's key, which holds no space: what became of the change.
const DONE: &str = " done";
const REFUSED: &str = " refused";

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

/// How far a change under a key had come before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// It may have been made.
    Begun,
    /// It was not made.
    Refused,
    Done,
}

impl Store {
    /// Makes the change, under a key at most once. Whether it had been made before.
    pub async fn change_members(
        &self,
        change: MemberChange,
        keyed: Option<Keyed>,
    ) -> Result<bool, MemberError> {
        let Some(keyed) = keyed else {
            return self.change(change).await.map(|()| false);
        };
        let before = self.begin(&keyed).await?;
        if before == Before::Done {
            return Ok(true);
        }
        let is_removal = matches!(change, MemberChange::Remove { .. });
        let outcome = match self.change(change).await {
            // It went the first time.
            Err(MemberError::NotFound) if is_removal && before == Before::Begun => Ok(()),
            outcome => outcome,
        };
        let said = match &outcome {
            Ok(()) => DONE,
            Err(MemberError::Unknown | MemberError::NoLeader) => return outcome.map(|()| false),
            Err(_) => REFUSED,
        };
        // Lost, a repeat makes the change again, and finds it made.
        self.note(&keyed, said).await.ok();
        outcome.map(|()| before == Before::Begun)
    }

    async fn begin(&self, keyed: &Keyed) -> Result<Before, MemberError> {
        let reply = self.note(keyed, "").await?;
        match reply.answer {
            Answer::Refused(refusal) => return Err(MemberError::Key(refusal)),
            _ if !reply.replayed => return Ok(Before::Nothing),
            _ => {}
        }
        let point = self.read_point(Level::Linearizable).await?;
        let noted = |said| {
            let id = KeptId {
                owner: keyed.owner.clone(),
                key: format!("{}{said}", keyed.once.key),
            };
            point.generation.db().kept(&id).is_some()
        };
        Ok(if noted(DONE) {
            Before::Done
        } else if noted(REFUSED) {
            Before::Refused
        } else {
            Before::Begun
        })
    }

    /// Keeps an answer that says nothing but that it was kept.
    async fn note(&self, keyed: &Keyed, said: &str) -> Result<crate::command::Reply, WriteError> {
        let once = Once {
            key: format!("{}{said}", keyed.once.key),
            ..keyed.once.clone()
        };
        self.write(Command {
            actor: keyed.actor,
            action: Action::Txn(Txn::default()),
            once: Some(once),
        })
        .await
    }

    /// Asks whoever leads until somebody does.
    async fn change(&self, change: MemberChange) -> Result<(), MemberError> {
        let desk = &self.inner.desk;
        let deadline = tokio::time::Instant::now() + 2 * LEADER_WAIT;
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
            if refused != MemberRefused::NotLeader || tokio::time::Instant::now() >= deadline {
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
