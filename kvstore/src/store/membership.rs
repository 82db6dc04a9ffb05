//! Changes to who belongs to the cluster and who leads it.
//!
//! They are no commands of the state machine, so an idempotency key is kept around them: one answer is kept before the
//! change begins and one when it is done. A repeat that finds the first and not the second goes on with the change, once
//! a twin that makes it just now has ended. What was refused is tried again.

use std::time::Duration;

use service::arrival;
use tokio::time::Instant;

use super::{LEADER_WAIT, Level, ReadError, Store, WriteError};
use crate::command::{Action, Actor, Answer, Command, Once, Refusal, Reply, Txn};
use crate::machine::base::Base as _;
use crate::machine::state::KeptId;
use crate::raft::network::link::AskError;
use crate::raft::network::message::{Ask, MemberChange, MemberRefused, Told};
use crate::raft::view::{self, RaftView};

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
        let proposals = &self.inner.proposals;
        proposals.propose_unheld(note, arrival::came()).await
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
        let mut may_have_begun = false;
        loop {
            let view = view::view(&desk.raft);
            let refused = match self.tell_leader(&view, &change).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(refused)) => {
                    may_have_begun = true;
                    refused
                }
                None => MemberRefused::NotLeader,
            };
            if refused != MemberRefused::NotLeader {
                return Err(refused.into());
            }
            if Instant::now() >= deadline {
                // Who is no leader any more may have been one for the first step, and somebody takes the second.
                return Err(if may_have_begun {
                    MemberError::Unknown
                } else {
                    MemberError::NoLeader
                });
            }
            let changes = view::leader_changes(&desk.raft, view.leader);
            tokio::time::timeout(RETRY_PAUSE, changes).await.ok();
        }
    }

    /// What the leader of this view says; `None` if surely nobody has heard of the change.
    async fn tell_leader(&self, view: &RaftView, change: &MemberChange) -> Option<Result<(), MemberRefused>> {
        let (desk, leader) = (&self.inner.desk, view.leader?);
        if leader == view.me {
            return Some(desk.change_member(change.clone()).await);
        }
        let link = desk.peers.link(leader, &view.members.get(&leader)?.peer_address);
        match link.ask(&Ask::Member(change.clone())).await {
            Ok(Told::Member(told)) => Some(told),
            Err(AskError::NotSent(_) | AskError::TooLarge) => None,
            Ok(_) | Err(AskError::Lost) => Some(Err(MemberRefused::Unknown)),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use service::config::Config;
    use service::tasks::Tasks;
    use tokio::net::TcpListener;

    use super::*;
    use crate::raft::bare::{Bare, trust};
    use crate::raft::led::{FOLLOWER, LEADER, begin_to_lead};
    use crate::raft::network::frame::write_frame;
    use crate::raft::network::handshake::{Trust, accept};
    use crate::raft::network::message;

    /// A leader that has taken the first step of each change by the time that it leads no longer.
    async fn begin_and_stop(listener: TcpListener, trust: Arc<Trust>) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = accept(&trust, stream).await.unwrap();
        while let Ok(Some(frame)) = connection.reader.next().await {
            let (number, body) = frame.split_at(8);
            if let Ask::Member(_) = message::decode(body).unwrap() {
                let told = message::encode(&Told::Member(Err(MemberRefused::NotLeader)));
                let answer = [number, told.as_slice()].concat();
                write_frame(&mut connection.writer, &answer).await.unwrap();
            }
        }
    }

    /// What becomes of a change at a node that follows the leader at this address.
    async fn changed(leader: &str) -> Result<bool, MemberError> {
        let mut config = Config::default();
        // Nobody else is to lead.
        (config.store.election_min_ms, config.store.election_max_ms) = (60_000, 90_000);
        let follower = Bare::start(FOLLOWER, &config).await;
        begin_to_lead(&follower.desk, leader).await;
        let store = Store::over(&follower, &config.limits);
        let changed = store.change_members(MemberChange::Remove { id: 3 }, None).await;
        follower.end().await;
        changed
    }

    #[tokio::test]
    async fn a_change_that_was_begun_is_not_told_as_surely_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        tasks.spawn("leader", begin_and_stop(listener, trust(folder.path(), LEADER)));
        let (begun, unheard) = (changed(&address), changed("127.0.0.1:1"));
        let (begun, unheard) = tokio::join!(Box::pin(begun), Box::pin(unheard));
        assert_eq!(begun, Err(MemberError::Unknown));
        assert_eq!(unheard, Err(MemberError::NoLeader));
    }
}
