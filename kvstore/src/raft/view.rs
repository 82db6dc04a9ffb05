//! What this node knows of the cluster, read from openraft without waiting for anyone.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use super::types::{Member, Raft};
use crate::machine::host::Lead;

/// Entries that a voter may lack when it is to lead. It has to have all of them first, and nobody leads meanwhile.
pub(in crate::raft) const LEAD_LAG_MAX: u64 = 100;

/// A consistent look at this node's Raft state.
#[derive(Clone, Debug)]
pub struct RaftView {
    pub me: u64,
    pub term: u64,
    pub leader: Option<u64>,
    pub state: Standing,
    pub last_log: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    /// The log begins behind this entry.
    pub purged: Option<u64>,
    pub members: BTreeMap<u64, Member>,
    pub voters: Vec<u64>,
    /// A change of the voters has begun and is not over.
    pub joint: bool,
    /// A majority has it that these are the members and voters. Until then it may go with this node.
    pub members_committed: bool,
    /// On the leader: how far each member has the log.
    pub matched: BTreeMap<u64, u64>,
    /// On the leader: how long ago the latest question was asked that a majority has answered.
    pub majority_silent: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Leader,
    Candidate,
    Follower,
    Learner,
}

impl RaftView {
    pub fn is_leader(&self) -> bool {
        self.state == Standing::Leader && self.leader == Some(self.me)
    }

    pub fn is_voter(&self, id: u64) -> bool {
        self.voters.contains(&id)
    }

    /// Entries that a member lacks, so far as the leader knows; only there it means anything.
    pub fn lag(&self, id: u64) -> u64 {
        let end = |last: Option<u64>| last.map_or(0, |last| last + 1);
        end(self.last_log).saturating_sub(end(self.matched.get(&id).copied()))
    }

    /// Whether the lead can be handed to it without a wait for what it lacks.
    pub fn can_take_over(&self, id: u64) -> bool {
        self.is_voter(id) && self.lag(id) <= LEAD_LAG_MAX
    }
}

/// Waits until Raft has stopped for good; answers why. Cancel-safe. The core says why before it lets go of all that it
/// publishes. Only what changes with leaders and members is watched, since the rest changes on each of its turns.
/// What it lets go of includes the log, which it waits for, though not without end.
pub async fn stopped(raft: &Raft) -> String {
    let mut standing = raft.server_metrics();
    while standing.changed().await.is_ok() {}
    match &raft.metrics().borrow_watched().running_state {
        Err(fatal) => fatal.to_string(),
        Ok(()) => "its core has ended".into(),
    }
}

pub fn leader(raft: &Raft) -> Option<u64> {
    raft.server_metrics().borrow_watched().current_leader
}

/// Whose lead this node follows, or is its own. Asked for with every read where mirrors are waited for.
pub fn lead(raft: &Raft) -> Lead {
    let leader = raft.server_metrics().borrow_watched().vote.leader_id;
    Lead {
        term: leader.term,
        node: leader.node_id,
    }
}

/// The lead of this node, if it leads: by its term, since the vote that is told is the one on its disk, which may be of
/// before. Asked for with every entry that it proposes, so it copies nothing else.
pub fn own_lead(raft: &Raft) -> Option<Lead> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let lead = Lead {
        term: metrics.current_term,
        node: metrics.id,
    };
    (metrics.state == ServerState::Leader).then_some(lead)
}

/// Where clients find the leader. Asked for with every write, so it copies nothing else.
pub fn leader_client_address(raft: &Raft) -> Option<String> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let leader = metrics.current_leader?;
    Some(
        metrics
            .membership_config
            .membership()
            .get_node(&leader)?
            .client_address
            .clone(),
    )
}

/// Where the others find a member. Asked for with every batch that is passed on, so it copies nothing else.
pub fn peer_address(raft: &Raft, id: u64) -> Option<String> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let member = metrics.membership_config.membership().get_node(&id)?;
    Some(member.peer_address.clone())
}

pub fn view(raft: &Raft) -> RaftView {
    // Cloned at once: a guard held any longer would block openraft's core.
    let metrics = raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership();
    let index = |id: &Option<super::types::LogId>| id.as_ref().map(|id| id.index);
    let matched = metrics.replication.iter().flatten();
    RaftView {
        me: metrics.id,
        term: metrics.current_term,
        leader: metrics.current_leader,
        state: match metrics.state {
            ServerState::Leader => Standing::Leader,
            ServerState::Candidate => Standing::Candidate,
            ServerState::Follower => Standing::Follower,
            ServerState::Learner | ServerState::Shutdown => Standing::Learner,
        },
        last_log: metrics.last_log_index,
        committed: index(&metrics.local_committed),
        applied: index(&metrics.last_applied),
        snapshot: index(&metrics.snapshot),
        purged: index(&metrics.purged),
        members: membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect(),
        voters: membership.voter_ids().collect(),
        joint: membership.get_joint_config().len() > 1,
        members_committed: metrics.membership_config.log_id() == metrics.committed_membership_config.log_id(),
        matched: matched
            .filter_map(|(id, log_id)| Some((*id, log_id.as_ref()?.index)))
            .collect(),
        majority_silent: metrics.last_quorum_acked.map(|at| at.elapsed()),
    }
}

/// Waits until what this node knows of the cluster is so, and answers it. Cancel-safe.
pub async fn becomes(raft: &Raft, so: impl Fn(&RaftView) -> bool) -> RaftView {
    let mut metrics = raft.metrics();
    loop {
        let view = view(raft);
        if so(&view) {
            return view;
        }
        if metrics.changed().await.is_err() {
            // The core has ended, and will learn nothing more.
            return std::future::pending().await;
        }
    }
}

/// Waits until the leader that this node knows is no longer `leader`. Cancel-safe.
pub async fn leader_changes(raft: &Raft, leader: Option<u64>) {
    let mut metrics = raft.server_metrics();
    loop {
        if metrics.borrow_watched().current_leader != leader {
            return;
        }
        if metrics.changed().await.is_err() {
            // The core has ended, and there will be no other.
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;
    use crate::raft::bare::{Bare, DEADLINE, calm};
    use crate::raft::log::held;

    #[tokio::test]
    async fn whoever_waits_for_the_end_is_told_why_it_came() {
        let node = Bare::start(1, &calm()).await;
        let raft = node.desk.raft.clone();
        let mut waiting = pin!(stopped(&raft));
        let early = timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(early.is_err(), "it runs: {early:?}");
        node.end().await;
        let told = timeout(DEADLINE, waiting).await;
        assert_eq!(told.expect("the core has ended"), "raft stopped");
    }

    /// The core lets go of the log, whose thread does not end; and all else has one thread, as on a small machine.
    #[tokio::test]
    async fn whoever_waits_for_the_end_is_told_also_while_the_log_hangs() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, release) = held::open(folder.path());
        let closed = log.closed();
        let node = Bare::over(log, folder, 1, &calm()).await;
        let raft = node.desk.raft.clone();
        let began = Instant::now();
        let (told, ()) = tokio::join!(stopped(&raft), node.end());
        let took = began.elapsed();
        assert_eq!(told, "raft stopped");
        assert!(took < DEADLINE, "told after {took:?}");
        drop(release);
        let closed = timeout(DEADLINE, closed.wait()).await;
        closed.expect("the log is closed once its disk answers");
    }
}
