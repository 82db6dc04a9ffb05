//! What the leader does, for its own clients and for those of the others alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::clock::Heard;
use super::intake::Intake;
use super::mirrors::MirrorDesk;
use super::network::message::{
    Ask, Health, MemberChange, MemberRefused, MirrorHeard, Moment, NotNow, Proposed, Standing, Told,
};
use super::network::taken::Taken;
use super::peers::Peers;
use super::types::{LogId, Raft, Vote};
use super::view::{self, RaftView};
use crate::command::{
    Action, Actor, Answer, Command, MirrorsWere, Refusal, Reply, decode_commands, encode_commands,
};
use crate::machine::host::Machine;
use crate::metrics::NodeMetrics;

/// A follower that has heard its leader within this time is in touch with the cluster.
const IN_TOUCH: Duration = Duration::from_secs(1);

pub struct Desk {
    pub raft: Raft,
    pub intake: Intake,
    pub mirrors: MirrorDesk,
    pub machine: Arc<Machine>,
    pub peers: Arc<Peers>,
    pub metrics: Arc<NodeMetrics>,
    pub heard: Heard,
    pub taken: Taken,
    /// Too full to take what needs room.
    pub disk_full: AtomicBool,
    /// So long after a majority has answered the leader, no timeout can have made another.
    pub undisputed: Duration,
}

impl Desk {
    /// Proposes encoded commands and answers what applying them answered, once the mirrors have it too.
    pub async fn propose(&self, commands: Bytes) -> Result<Proposed, NotNow> {
        if self.mirrors.refuses() {
            return Err(NotNow::MirrorLost);
        }
        let replies = self.intake.propose(commands).await?;
        let mirrors = self.mirrors.hold(&replies).await?;
        Ok(Proposed { replies, mirrors })
    }

    /// The same without a look at the mirrors.
    pub async fn propose_unheld(&self, commands: Bytes) -> Result<Proposed, NotNow> {
        let replies = self.intake.propose(commands).await?;
        let mirrors = MirrorsWere::None;
        Ok(Proposed { replies, mirrors })
    }

    /// One command of the node's own.
    pub async fn propose_own(&self, action: Action) -> Result<Reply, NotNow> {
        let command = Command {
            actor: Actor::System,
            action,
            once: None,
        };
        // Nobody is told of it, so it waits for nobody.
        let replies = self.intake.propose(encode_commands(&[command]).into()).await?;
        Ok(replies.into_iter().next().expect("one command gets one reply"))
    }

    /// What a read beginning now has to see; a majority has confirmed that this node still leads.
    pub async fn read_index(&self) -> Result<Moment, NotNow> {
        let index = self.intake.reads.index().await?;
        let mirrored = self.mirrors.mirrored(|| view::lead(&self.raft));
        Ok(Moment { index, mirrored })
    }

    /// Who leads, to tell others: a leader that no majority has answered for so long that another may lead
    /// names nobody. What is proposed to it is still tried, since a majority may yet answer.
    pub fn leader_to_tell(&self, view: &RaftView) -> Option<u64> {
        let too_long = |silent| silent >= self.undisputed;
        let alone = view.is_leader() && view.voters.len() > 1 && view.majority_silent.is_some_and(too_long);
        view.leader.filter(|_| !alone)
    }

    /// Whether what this node has is what the cluster had not long ago: it leads, or hears who does.
    pub fn is_in_touch(&self) -> bool {
        let view = view::view(&self.raft);
        if view.is_leader() {
            return self.leader_to_tell(&view).is_some();
        }
        self.heard.ago() < IN_TOUCH
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
            disk_full: self.disk_full.load(Ordering::Relaxed),
        }
    }

    /// Whether what another member wants proposed can be applied by all, and has room here. What is not admitted is asked
    /// for again, and by then another may lead that knows more, or has room.
    fn admits(&self, commands: &[u8]) -> bool {
        match decode_commands(commands) {
            Ok(commands) => {
                // With one that frees room, or keeps a lease alive, the others pass too.
                !self.disk_full.load(Ordering::Relaxed)
                    || !commands.iter().all(|command| command.action.grows())
            }
            Err(error) => {
                tracing::error!(%error, "commands of a member do not decode; they are not proposed");
                false
            }
        }
    }

    /// Answers a question of another member.
    pub async fn answer(&self, question: Ask) -> Told {
        match question {
            Ask::Probe => Told::Probe {
                empty: !self.raft.is_initialized().await.unwrap_or(true),
            },
            Ask::ReadIndex => Told::ReadIndex(self.read_index().await),
            Ask::Propose(commands) | Ask::ProposeUnheld(commands) if !self.admits(&commands) => {
                Told::Proposed(Err(NotNow::Overloaded))
            }
            Ask::Propose(commands) => Told::Proposed(self.propose(commands).await),
            Ask::ProposeUnheld(commands) => Told::Proposed(self.propose_unheld(commands).await),
            Ask::Mirror {
                name,
                incarnation,
                revision,
            } => Told::Mirror(self.hear_mirror(&name, &incarnation, revision).await),
            Ask::Mirrors => Told::Mirrors(self.mirrors.views()),
            Ask::Mirrored(revision) => Told::Mirrored(self.mirrors.wait_for_read(revision).await.map(drop)),
            Ask::LastLog => Told::LastLog {
                last: self.vote_and_last().await.and_then(|(_, last)| last),
            },
            Ask::Member(change) => Told::Member(self.change_member(change).await),
            Ask::Standing => Told::Standing(self.standing()),
            Ask::Health => Told::Health(self.health()),
        }
    }

    /// Only the leader waits for mirrors, so only its ear counts.
    pub async fn hear_mirror(&self, name: &str, incarnation: &str, revision: u64) -> MirrorHeard {
        let view = view::view(&self.raft);
        if view.leader != Some(view.me) {
            return MirrorHeard::NotLeader;
        }
        self.mirrors.hear(view.term, name, incarnation, revision).await
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
