//! How the membership changes, on the leader: one step at a time, each refused with its reason.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use super::desk::Desk;
use super::network::handshake::{HandshakeError, Purpose, Refused, connect};
use super::network::message::{Ask, MemberRefused};
use super::types::{Member, TypeConfig};
use super::view::{self, RaftView};

/// Entries that a learner may lack when it becomes a voter.
const PROMOTION_LAG_MAX: u64 = 1000;
/// How long a voter that is to lead may take to get most of what it lacks.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long a hand-over may take before its outcome is called unknown.
const HAND_OVER: Duration = Duration::from_secs(2);
/// The same for a change of the voters.
const CHANGE: Duration = Duration::from_secs(5);
/// Who does not answer within this is counted as gone.
const ANSWER: Duration = Duration::from_millis(500);
/// Voters go by a removal alone. Whoever takes its second step must not keep them as learners, also one that only adds.
const RETAIN: bool = false;

type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

fn refused(error: WriteError) -> MemberRefused {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MemberRefused::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => MemberRefused::InProgress,
            ChangeMembershipError::EmptyMembership(_) => MemberRefused::LastVoter,
            _ => MemberRefused::NotFound,
        },
        _ => MemberRefused::Unknown,
    }
}

/// While another change is under way, asking a node for its disk, and an entry that tells it, would be for nothing.
fn is_settled(view: &RaftView) -> Result<(), MemberRefused> {
    if view.joint {
        Err(MemberRefused::InProgress)
    } else {
        Ok(())
    }
}

impl Desk {
    pub(super) async fn add_learner(
        &self,
        id: u64,
        peer_address: String,
        client_address: String,
    ) -> Result<(), MemberRefused> {
        let view = view::view(&self.raft);
        if !view.is_leader() {
            return Err(MemberRefused::NotLeader);
        }
        let member = Member {
            peer_address,
            client_address,
        };
        if view.members.contains_key(&id) {
            // Asked for twice, done once.
            return self.is_added(id, &member).await;
        }
        if view
            .members
            .values()
            .any(|other| other.peer_address == member.peer_address)
        {
            return Err(MemberRefused::Exists);
        }
        is_settled(&view)?;
        // It need not run yet; if it does, its disk is bound before it holds anything.
        match self.bind_by_asking(id, &member.peer_address).await {
            Err(MemberRefused::Unreachable) | Ok(()) => {}
            Err(other) => return Err(other),
        }
        // Openraft's own way to add one retains, and a removal may be between its steps by now.
        let adding = ChangeMembers::AddNodes([(id, member.clone())].into());
        self.change(adding).await?;
        // Another may have got the number meanwhile; openraft keeps whoever was first, and says nothing.
        self.is_added(id, &member).await
    }

    /// Whether the number is this member's.
    async fn is_added(&self, id: u64, member: &Member) -> Result<(), MemberRefused> {
        let view = self.lasting(|view| view.members.contains_key(&id)).await?;
        let is_this = view.members.get(&id) == Some(member);
        is_this.then_some(()).ok_or(MemberRefused::Exists)
    }

    /// Waits until it is so of the members and will stay so, for whoever is told what was found and not made: an entry that
    /// this node alone has may go with it. Who leads no longer may lose it, and only the next leader knows whether it did.
    async fn lasting(&self, so: impl Fn(&RaftView) -> bool) -> Result<RaftView, MemberRefused> {
        let known = view::becomes(&self.raft, |view| {
            !view.is_leader() || (view.members_committed && so(view))
        });
        match tokio::time::timeout(CHANGE, known).await {
            Ok(view) if view.is_leader() => Ok(view),
            Ok(_follower) => Err(MemberRefused::NotLeader),
            Err(_late) => Err(MemberRefused::Unknown),
        }
    }

    /// Asks the node at `address` for the name of its disk.
    pub(super) async fn bind_by_asking(&self, id: u64, address: &str) -> Result<(), MemberRefused> {
        match connect(self.peers.trust(), id, address, Purpose::Ask).await {
            Ok(connection) => tokio::time::timeout(CHANGE, self.bind(id, connection.peer_disk))
                .await
                .unwrap_or(Err(MemberRefused::Unknown)),
            Err(HandshakeError::Refused(Refused::DiskReused)) => Err(MemberRefused::DiskReused),
            Err(_) => Err(MemberRefused::Unreachable),
        }
    }

    pub(super) async fn promote(&self, id: u64) -> Result<(), MemberRefused> {
        let view = view::view(&self.raft);
        if !view.is_leader() {
            return Err(MemberRefused::NotLeader);
        }
        let member = view.members.get(&id).ok_or(MemberRefused::NotFound)?;
        if view.is_voter(id) {
            self.finish_change().await?;
            // What was finished may have been its removal.
            let view = self.lasting(|view| !view.joint).await?;
            return view.is_voter(id).then_some(()).ok_or(MemberRefused::NotFound);
        }
        is_settled(&view)?;
        let lag = view.lag(id);
        if lag > PROMOTION_LAG_MAX {
            return Err(MemberRefused::NotCaughtUp { lag });
        }
        self.bind_by_asking(id, &member.peer_address).await?;
        // That takes its time. A voter by now, it may be halfway removed, and this would take back what is told as done.
        is_settled(&view::view(&self.raft))?;
        self.change(ChangeMembers::AddVoterIds([id].into())).await
    }

    /// A change that cannot be finished now may be later, so its outcome is unknown.
    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), MemberRefused> {
        let changing = self.raft.change_membership(change, RETAIN);
        match tokio::time::timeout(CHANGE, changing).await {
            // All that openraft asks for is that nobody takes the second step before it does. Somebody has: a twin, or
            // whoever cleans up.
            Ok(Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_)))) => self.change_ends().await,
            Ok(changed) => changed.map(drop).map_err(refused),
            Err(_late) => Err(MemberRefused::Unknown),
        }
    }

    /// The first step is committed, so there is an end, whoever leads then. But the second may be in this node's log alone,
    /// and if it goes with it, the change is not over: whoever was removed is still needed.
    async fn change_ends(&self) -> Result<(), MemberRefused> {
        let ended = view::becomes(&self.raft, |view| view.members_committed && !view.joint);
        tokio::time::timeout(CHANGE, ended)
            .await
            .map(drop)
            .map_err(|_late| MemberRefused::Unknown)
    }

    /// A leader may have died between the two steps of a change; nothing but another change would take the second.
    pub async fn finish_change(&self) -> Result<(), MemberRefused> {
        if !view::view(&self.raft).joint {
            return Ok(());
        }
        self.change(ChangeMembers::AddVoterIds([].into())).await
    }

    pub(super) async fn remove(&self, id: u64) -> Result<(), MemberRefused> {
        let view = view::view(&self.raft);
        if !view.is_leader() {
            return Err(MemberRefused::NotLeader);
        }
        if !view.members.contains_key(&id) {
            // Under a key that is taken for its removal.
            self.lasting(|view| !view.members.contains_key(&id)).await?;
            return Err(MemberRefused::NotFound);
        }
        if !view.is_voter(id) {
            return self.change(ChangeMembers::RemoveNodes([id].into())).await;
        }
        if view.voters.len() == 1 {
            return Err(MemberRefused::LastVoter);
        }
        if id == view.me {
            // The leader that is to go hands over first; the new one is asked again by the caller.
            let heir = view
                .voters
                .iter()
                .copied()
                .filter(|voter| *voter != id)
                .max_by_key(|voter| view.matched.get(voter).copied());
            self.hand_over(heir.ok_or(MemberRefused::LastVoter)?).await?;
            return Err(MemberRefused::NotLeader);
        }
        self.majority_lives_without(id, &view).await?;
        self.change(ChangeMembers::RemoveVoters([id].into())).await
    }

    /// Without a majority of those who stay, the change could neither be finished nor taken back.
    async fn majority_lives_without(&self, id: u64, view: &RaftView) -> Result<(), MemberRefused> {
        let staying = view.voters.iter().copied().filter(|voter| *voter != id);
        let staying: Vec<u64> = staying.collect();
        let living = staying.iter().map(|voter| async {
            if *voter == view.me {
                return true;
            }
            let Some(member) = view.members.get(voter) else {
                return false;
            };
            let link = self.peers.link(*voter, &member.peer_address);
            let answer = tokio::time::timeout(ANSWER, link.ask(&Ask::Standing)).await;
            matches!(answer, Ok(Ok(_)))
        });
        let living = futures_util::future::join_all(living).await;
        let living = living.into_iter().filter(|lives| *lives).count();
        if living > staying.len() / 2 {
            Ok(())
        } else {
            Err(MemberRefused::Unreachable)
        }
    }

    /// Lets `to` lead, without a wait for timeouts.
    pub async fn hand_over(&self, to: u64) -> Result<(), MemberRefused> {
        let view = view::view(&self.raft);
        if view.leader == Some(to) {
            return Ok(());
        }
        if !view.is_leader() {
            return Err(MemberRefused::NotLeader);
        }
        if !view.members.contains_key(&to) {
            return Err(MemberRefused::NotFound);
        }
        if !view.is_voter(to) {
            return Err(MemberRefused::NotCaughtUp {
                lag: view.last_log.unwrap_or(0),
            });
        }
        self.has_nearly_all(to).await?;
        if self.raft.trigger().transfer_leader(to).await.is_err() {
            return Err(MemberRefused::Unknown);
        }
        let changed = async {
            view::leader_changes(&self.raft, Some(view.me)).await;
            view::leader_changes(&self.raft, None).await;
        };
        tokio::time::timeout(HAND_OVER, changed)
            .await
            .map_err(|_late| MemberRefused::Unknown)
    }

    /// Waits a little until `to` can take over. openraft does not look at what it lacks, and once it is told to hand
    /// over, this node proposes nothing and sends no heartbeats, whether it comes to that or not.
    async fn has_nearly_all(&self, to: u64) -> Result<(), MemberRefused> {
        let known = view::becomes(&self.raft, |view| !view.is_leader() || view.can_take_over(to));
        match tokio::time::timeout(CATCH_UP, known).await {
            Ok(view) if view.is_leader() => Ok(()),
            Ok(_follower) => Err(MemberRefused::NotLeader),
            Err(_late) => Err(MemberRefused::NotCaughtUp {
                lag: view::view(&self.raft).lag(to),
            }),
        }
    }

    /// Addresses of all members but this node.
    pub fn others(&self) -> BTreeMap<u64, Member> {
        let view = view::view(&self.raft);
        view.members
            .into_iter()
            .filter(|(id, _)| *id != view.me)
            .collect()
    }
}

#[cfg(test)]
mod tests;
