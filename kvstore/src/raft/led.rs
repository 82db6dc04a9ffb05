//! For tests that play the leader: what a node hears from one first.

use std::collections::BTreeMap;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::AppendEntriesRequest;

use super::desk::Desk;
use super::entry::log_id;
use super::types::{Entry, Member, Membership, Vote};

/// The number of whoever leads.
pub(crate) const LEADER: u64 = 1;
pub(crate) const FOLLOWER: u64 = 2;

/// Says to it what a leader says first: that it leads, and who belongs to the cluster.
pub(crate) async fn begin_to_lead(follower: &Desk, leader_address: &str) {
    let member = |peer_address: &str| Member {
        peer_address: peer_address.to_owned(),
        client_address: String::new(),
    };
    let members = BTreeMap::from([
        (LEADER, member(leader_address)),
        (FOLLOWER, member("127.0.0.1:0")),
    ]);
    let voters = members.keys().copied().collect();
    let membership = Membership::new(vec![voters], members).unwrap();
    let first = Entry::new(log_id(1, LEADER, 0), EntryPayload::Membership(membership));
    let append = AppendEntriesRequest {
        vote: Vote::new_committed(1, LEADER),
        prev_log_id: None,
        entries: vec![first],
        leader_commit: None,
    };
    follower.raft.append_entries(append).await.unwrap();
}
