//! The cluster, its members and one node's state.

use super::Revision;
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub cluster_id: String,
    /// The id of the leader, if the node that answered knows one.
    pub leader: Option<u64>,
    pub term: u64,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    #[serde(default)]
    pub peer_address: String,
    pub role: Role,
    #[serde(default)]
    pub voter: bool,
    /// The last three are missing when the node that answered cannot know them.
    #[serde(default)]
    pub last_log: Option<u64>,
    #[serde(default)]
    pub applied: Option<u64>,
    #[serde(default)]
    pub lag: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Unreachable,
    /// A word that this client does not know yet.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for Role {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        })
    }
}

/// Answer of `GET /v1/status`: the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: u64,
    #[serde(default)]
    pub name: String,
    pub role: Role,
    pub term: u64,
    pub leader: Option<u64>,
    pub last_log: u64,
    pub committed: u64,
    pub applied: u64,
    pub revision: Revision,
    pub compacted_revision: Revision,
    pub db_bytes: u64,
    pub uptime_ms: u64,
    pub version: String,
    /// Hash over the whole state, as hexadecimal digits: equal on all members at equal `applied`.
    pub state_hash: String,
}

/// Body of `POST /v1/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    pub id: u64,
    pub peer_address: String,
    pub client_address: String,
}

/// Body of `POST /v1/cluster/leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLeader {
    pub to: u64,
}

/// Body of `POST /v1/compact`, and its answer: what it is compacted to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    pub revision: Revision,
}

/// Answer of `GET /v1/hash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hash {
    pub revision: Revision,
    /// Hexadecimal digits.
    pub hash: String,
}
