//! What the leader does, for its own clients and for those of the others alike.

use std::sync::Arc;

use bytes::Bytes;
use openraft::ReadPolicy;

use super::intake::Intake;
use super::network::message::{Ask, Health, MemberChange, MemberRefused, NotNow, Standing, Told};
use super::peers::Peers;
use super::types::{LogId, Raft, Vote};
use super::view::{self, RaftView};
use crate::command::{Action, Actor, Answer, Command, Refusal, Reply, encode_commands};
use crate::machine::host::Machine;
use crate::metrics::NodeMetrics;

pub struct Desk {
    pub raft: Raft,
    pub intake: Intake,
    pub machine: Arc<Machine>,
    pub peers: Arc<Peers>,
    pub metrics: Arc<NodeMetrics>,
    /// So long after a majority has answered the leader, no timeout can have made another.
    pub undisputed: std::time::Duration,
}

impl Desk {
    /// Proposes encoded commands and answers what applying them answered.
    pub async fn propose(&self, commands: Bytes) -> Result<Vec<Reply>, NotNow> {
        self.intake.propose(commands).await
    }

    /// One command of the node's own.
    pub async fn propose_own(&self, action: Action) -> Result<Reply, NotNow> {
        let command = Command {
            actor: Actor::System,
            action,
            once: None,
        };
        let replies = self.propose(encode_commands(&[command]).into()).await?;
        Ok(replies.into_iter().next().expect("one command gets one reply"))
    }

    /// The index after the last entry that a read beginning now has to see; a majority has confirmed
    /// that this node still leads.
    pub async fn read_index(&self) -> Result<u64, NotNow> {
        self.metrics.read_index_rounds.inc();
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index() + 1),
            Err(_) => Err(NotNow::NotLeader),
        }
    }

    /// Who leads, to tell others: a leader that no majority has answered for so long that another may lead
    /// names nobody. What is proposed to it is still tried, since a majority may yet answer.
    pub fn leader_to_tell(&self, view: &RaftView) -> Option<u64> {
        let too_long = |silent| silent >= self.undisputed;
        let alone = view.is_leader() && view.voters.len() > 1 && view.majority_silent.is_some_and(too_long);
        view.leader.filter(|_| !alone)
    }

    pub fn standing(&self) -> Standing {
        let view = view::view(&self.raft);
        let progress = self.machine.progress_now();
        Standing {
            last_log: view.last_log,
            applied: progress.applied_end.checked_sub(1),
            revision: progress.revision,
        }
    }

    fn health(&self) -> Health {
        let pace = self.metrics.log_pace.now();
        Health {
            sync_us: u64::try_from(pace.as_micros()).unwrap_or(u64::MAX),
            marks: self.machine.agreement.marks(),
        }
    }

    /// Answers a question of another member.
    pub async fn answer(&self, question: Ask) -> Told {
        match question {
            Ask::Probe => Told::Probe {
                empty: !self.raft.is_initialized().await.unwrap_or(true),
            },
            Ask::ReadIndex => Told::ReadIndex(self.read_index().await),
            Ask::Propose(commands) => Told::Proposed(self.propose(commands).await),
            Ask::LastLog => Told::LastLog {
                last: self.vote_and_last().await.and_then(|(_, last)| last),
            },
            Ask::Member(change) => Told::Member(self.change_member(change).await),
            Ask::Standing => Told::Standing(self.standing()),
            Ask::Health => Told::Health(self.health()),
        }
    }

    /// `None` when Raft has stopped.
    pub async fn vote_and_last(&self) -> Option<(Vote, Option<LogId>)> {
        self.raft
            .with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied()))
            .await
            .ok()
    }

    /// Ties a member's number to the disk that answers under it, so that an emptied disk is noticed.
    pub async fn bind(&self, id: u64, disk: String) -> Result<(), MemberRefused> {
        match self.propose_own(Action::BindMember { id, disk }).await {
            Ok(Reply {
                answer: Answer::Refused(Refusal::DiskMismatch),
                ..
            }) => Err(MemberRefused::DiskReused),
            Ok(_) => Ok(()),
            Err(NotNow::NotLeader) => Err(MemberRefused::NotLeader),
            Err(_) => Err(MemberRefused::Unknown),
        }
    }

    pub async fn change_member(&self, change: MemberChange) -> Result<(), MemberRefused> {
        match change {
            MemberChange::Add {
                id,
                peer_address,
                client_address,
            } => self.add_learner(id, peer_address, client_address).await,
            MemberChange::Promote { id } => self.promote(id).await,
            MemberChange::Remove { id } => self.remove(id).await,
            MemberChange::Lead { to } => self.hand_over(to).await,
        }
    }
}
