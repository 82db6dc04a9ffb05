//! For tests that play the leader: a node that follows them.
//! Invariant: it is a node as any other, with a log and a state machine on disk; only nobody asks it for anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::raft::AppendEntriesRequest;
use service::config::Config;
use service::tasks::Tasks;

use super::clock::Heard;
use super::config::openraft_config;
use super::desk::Desk;
use super::entry::log_id;
use super::identity::Identity;
use super::intake::Intake;
use super::log::LogStore;
use super::mirrors::MirrorDesk;
use super::network::client::PeerNetworkFactory;
use super::network::handshake::Trust;
use super::peers::Peers;
use super::types::{Entry, Member, Membership, Raft, Vote};
use crate::machine::adapter::MachineAdapter;
use crate::machine::small::opened;

/// The number of whoever leads.
pub(crate) const LEADER: u64 = 1;
const FOLLOWER: u64 = 2;

/// What a node of this number and the other one know each other by.
pub(crate) fn trust(folder: &Path, id: u64) -> Arc<Trust> {
    Arc::new(Trust {
        identity: Identity::load_or_create(folder, id).unwrap(),
        secret: b"a secret of both".to_vec(),
        tls: None,
        bound_disk: Box::new(|_| None),
    })
}

/// One that has not heard of a leader, nor of a cluster.
pub(crate) async fn follower(folder: &Path, config: &Config, tasks: &Tasks) -> Arc<Desk> {
    let machine = opened(folder);
    let metrics = Arc::clone(&machine.metrics);
    let (log, ..) = LogStore::open(&folder.join("raft"), (None, 0), 1 << 20, Arc::clone(&metrics)).unwrap();
    let adapter = MachineAdapter::start(Arc::clone(&machine), log.flushed()).unwrap();
    let trust = trust(folder, FOLLOWER);
    let factory = PeerNetworkFactory {
        trust: Arc::clone(&trust),
        tasks: tasks.clone(),
        metrics: Arc::clone(&metrics),
        damage: Arc::clone(&machine.damage),
    };
    let settings = openraft_config(config, FOLLOWER).unwrap();
    let raft = Raft::new(FOLLOWER, settings, factory, log, adapter)
        .await
        .unwrap();
    Arc::new(Desk {
        intake: Intake::start(raft.clone(), Arc::clone(&machine), tasks, Arc::clone(&metrics)),
        mirrors: MirrorDesk::new(Arc::clone(&machine)),
        raft,
        machine,
        peers: Arc::new(Peers::new(trust, tasks.clone())),
        metrics,
        heard: Heard::default(),
        disk_full: AtomicBool::new(false),
        undisputed: Duration::from_secs(20),
    })
}

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
