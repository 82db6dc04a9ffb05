//! A node of which nobody takes care, for tests: Raft with its log, its machine and its peer port. What a node does of its
//! own accord, such as the second step of a change that was left, waits until a test does it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use service::config::Config;
use service::tasks::Tasks;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::clock::Heard;
use super::config::openraft_config;
use super::desk::Desk;
use super::identity::Identity;
use super::intake::Intake;
use super::log::LogStore;
use super::mirrors::MirrorDesk;
use super::network::client::PeerNetworkFactory;
use super::network::handshake::Trust;
use super::network::server::PeerServer;
use super::network::taken::Taken;
use super::peers::Peers;
use super::types::{Member, Raft};
use super::view::{self, RaftView};
use crate::machine::adapter::MachineAdapter;
use crate::machine::small::opened;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Bare {
    pub(crate) desk: Arc<Desk>,
    pub(crate) tasks: Tasks,
    pub(crate) folder: TempDir,
    /// Of its peer port.
    pub(crate) address: String,
}

/// Tests share the machine with each other; an election without cause would only be noise.
pub(crate) fn calm() -> Config {
    let mut config = Config::default();
    config.store.heartbeat_ms = 100;
    config.store.election_min_ms = 1000;
    config.store.election_max_ms = 1200;
    config
}

/// By which all nodes of a test trust each other.
pub(crate) fn trust(folder: &Path, id: u64) -> Arc<Trust> {
    Arc::new(Trust {
        identity: Identity::load_or_create(folder, id).unwrap(),
        secret: b"a secret of all".to_vec(),
        tls: None,
        bound_disk: Box::new(|_| None),
    })
}

impl Bare {
    pub(crate) async fn start(id: u64, config: &Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (log, ..) =
            LogStore::open(&folder.path().join("raft"), (None, 0), 1 << 20, Arc::default()).unwrap();
        Self::over(log, folder, id, config).await
    }

    /// Over a log that is not as others.
    pub(crate) async fn over(log: LogStore, folder: TempDir, id: u64, config: &Config) -> Self {
        let (tasks, machine) = (Tasks::new(), opened(folder.path()));
        let metrics = Arc::clone(&machine.metrics);
        let adapter = MachineAdapter::start(Arc::clone(&machine), log.flushed()).unwrap();
        let trust = trust(folder.path(), id);
        let factory = PeerNetworkFactory {
            trust: Arc::clone(&trust),
            tasks: tasks.clone(),
            metrics: Arc::clone(&metrics),
            damage: Arc::clone(&machine.damage),
        };
        let settings = openraft_config(config, id).unwrap();
        let raft = Raft::new(id, settings, factory, log, adapter).await.unwrap();
        let desk = Arc::new(Desk {
            intake: Intake::start(raft.clone(), Arc::clone(&machine), &tasks, Arc::clone(&metrics)),
            mirrors: MirrorDesk::new(Arc::clone(&machine)),
            raft,
            machine,
            peers: Arc::new(Peers::new(Arc::clone(&trust), tasks.clone())),
            metrics,
            heard: Heard::default(),
            taken: Taken::default(),
            disk_full: AtomicBool::new(false),
            undisputed: DEADLINE,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = PeerServer::new(Arc::clone(&desk), trust, tasks.clone(), false, None);
        tasks.spawn("peer-port", server.serve(listener));
        Self {
            desk,
            tasks,
            folder,
            address,
        }
    }

    /// A cluster of so many voters, of which the first leads.
    pub(crate) async fn cluster(count: u64) -> Vec<Self> {
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(Box::pin(Self::start(id, &calm())).await);
        }
        Self::unite(&nodes).await;
        nodes
    }

    /// Makes them a cluster, which the first of them leads.
    pub(crate) async fn unite(nodes: &[Self]) {
        let voters: BTreeMap<u64, Member> = nodes.iter().map(Self::as_member).collect();
        let raft = &nodes[0].desk.raft;
        raft.initialize(voters).await.unwrap();
        // However long it would wait by itself.
        raft.trigger().elect(false).await.unwrap();
        nodes[0].leads().await;
    }

    fn as_member(&self) -> (u64, Member) {
        let member = Member {
            peer_address: self.address.clone(),
            client_address: self.address.clone(),
        };
        (self.desk.peers.trust().identity.id(), member)
    }

    /// Waits until it knows that.
    pub(crate) async fn knows(&self, what: &str, so: impl Fn(&RaftView) -> bool) {
        let known = tokio::time::timeout(DEADLINE, view::becomes(&self.desk.raft, so)).await;
        let view = view::view(&self.desk.raft);
        assert!(known.is_ok(), "waited for {what}; last seen: {view:?}");
    }

    /// Waits until it leads, and all that it has is committed, also what came from before.
    pub(crate) async fn leads(&self) {
        let leads = |view: &RaftView| view.is_leader() && view.committed == view.last_log;
        self.knows("that it leads", leads).await;
    }

    /// As if its process ended: whoever is connected with it is cut off.
    pub(crate) async fn end(self) {
        self.tasks.stop();
        self.desk.raft.shutdown().await.unwrap();
    }
}
