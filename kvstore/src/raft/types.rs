//! openraft with our types filled in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::{Proposal, Reply};
use crate::machine::adapter::MachineAdapter;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Proposal,
        R = Replies,
        NodeId = u64,
        Node = Member,
);

pub type Raft = openraft::Raft<TypeConfig, MachineAdapter>;
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFolder>;
pub type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What the membership says of a node. The name is for people, the addresses for peers and clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub peer_address: String,
    pub client_address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer_address)
    }
}

/// One reply for each command of a proposal, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Reply>);

impl fmt::Display for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replies", self.0.len())
    }
}

/// A snapshot is a folder of files: a checkpoint of ours, or one received from a peer.
#[derive(Clone, Debug)]
pub struct SnapshotFolder(pub std::path::PathBuf);
