//! How this node and the cluster stand.

use std::time::Duration;

use super::Store;
use crate::raft::network::message::{Ask, Told};
use crate::raft::view::{self, Standing};
use crate::storage::files;

/// A member that does not answer within this is shown as unreachable.
const ANSWER: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Unreachable,
}

#[derive(Clone, Debug)]
pub struct ClusterView {
    pub cluster_id: Option<String>,
    pub leader: Option<u64>,
    pub term: u64,
    /// Of this node.
    pub revision: u64,
    pub members: Vec<MemberView>,
}

#[derive(Clone, Debug)]
pub struct MemberView {
    pub id: u64,
    pub peer_address: String,
    pub client_address: String,
    pub voter: bool,
    pub role: Role,
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub lag: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct StatusView {
    pub id: u64,
    pub name: String,
    pub role: Role,
    pub term: u64,
    pub leader: Option<u64>,
    pub last_log: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    pub revision: u64,
    pub compacted_revision: u64,
    pub keys: u64,
    pub db_bytes: u64,
    pub uptime_ms: u64,
    pub version: &'static str,
    pub state_hash: u128,
    pub cluster_id: Option<String>,
}

impl Store {
    /// What this node knows by itself, also without a leader.
    pub fn cluster(&self) -> ClusterView {
        let desk = &self.inner.desk;
        let view = view::view(&desk.raft);
        let standing = desk.standing();
        let leader = desk.leader_to_tell(&view);
        let members = view.members.iter().map(|(id, member)| {
            let is_me = *id == view.me;
            let last_log = if is_me {
                standing.last_log
            } else {
                view.matched.get(id).copied()
            };
            let role = match (leader == Some(*id), view.is_voter(*id)) {
                (true, _) => Role::Leader,
                (false, true) => Role::Follower,
                (false, false) => Role::Learner,
            };
            MemberView {
                id: *id,
                peer_address: member.peer_address.clone(),
                client_address: member.client_address.clone(),
                voter: view.is_voter(*id),
                role,
                last_log,
                applied: if is_me { standing.applied } else { None },
                lag: lag(view.last_log, last_log),
            }
        });
        ClusterView {
            cluster_id: self.cluster_id(),
            leader,
            term: view.term,
            revision: self.machine().state().revision,
            members: members.collect(),
        }
    }

    /// The same, after asking each member how far it is.
    pub async fn cluster_live(&self) -> ClusterView {
        let mut cluster = self.cluster();
        let desk = &self.inner.desk;
        let me = desk.peers.trust().identity.id();
        let asked = cluster.members.iter().map(|member| {
            let link = desk.peers.link(member.id, &member.peer_address);
            async move {
                if member.id == me {
                    return Some(desk.standing());
                }
                match tokio::time::timeout(ANSWER, link.ask(&Ask::Standing)).await {
                    Ok(Ok(Told::Standing(standing))) => Some(standing),
                    _ => None,
                }
            }
        });
        let standings = futures_util::future::join_all(asked).await;
        let newest = standings
            .iter()
            .flatten()
            .filter_map(|standing| standing.last_log)
            .max();
        for (member, standing) in cluster.members.iter_mut().zip(standings) {
            match standing {
                Some(standing) => {
                    (member.last_log, member.applied) = (standing.last_log, standing.applied);
                    member.lag = lag(newest, standing.last_log);
                }
                None => member.role = Role::Unreachable,
            }
        }
        cluster
    }

    fn cluster_id(&self) -> Option<String> {
        self.inner.desk.peers.trust().identity.cluster_id()
    }

    pub fn status(&self) -> StatusView {
        let view = view::view(&self.inner.desk.raft);
        let leader = self.inner.desk.leader_to_tell(&view);
        let state = self.machine().state();
        let progress = self.machine().progress_now();
        StatusView {
            id: view.me,
            name: self.name().to_owned(),
            role: match view.state {
                Standing::Leader if leader == Some(view.me) => Role::Leader,
                Standing::Leader | Standing::Candidate | Standing::Follower => Role::Follower,
                Standing::Learner => Role::Learner,
            },
            term: view.term,
            leader,
            last_log: view.last_log,
            committed: view.committed,
            applied: progress.applied_end.checked_sub(1),
            revision: state.revision,
            compacted_revision: state.compacted,
            keys: state.keys,
            db_bytes: files::folder_bytes(&self.inner.folder),
            uptime_ms: u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION"),
            state_hash: state.hash,
            cluster_id: self.cluster_id(),
        }
    }

    /// Whether this node can do its work; the text says why not.
    pub fn ready(&self) -> Result<(), String> {
        if self.inner.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("this node is stopping".into());
        }
        let view = view::view(&self.inner.desk.raft);
        if self.inner.desk.leader_to_tell(&view).is_none() {
            return Err("no leader is known".into());
        }
        if self.machine().state().cluster_id.is_empty() {
            return Err("the cluster is still being made".into());
        }
        let behind = view
            .committed
            .map_or(0, |committed| committed + 1)
            .saturating_sub(self.machine().progress_now().applied_end);
        if behind > 10_000 {
            return Err(format!("this node has {behind} entries still to apply"));
        }
        Ok(())
    }
}

fn lag(newest: Option<u64>, last: Option<u64>) -> Option<u64> {
    Some(newest?.saturating_sub(last?))
}
