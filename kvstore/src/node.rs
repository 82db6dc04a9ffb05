//! One node: opens its storage, starts Raft, serves both ports, and stops in the right order.
//!
//! Order of stopping: say "not ready", hand over the lead while still serving, drain clients, close the
//! peer port, stop Raft, flush. The listeners close only after this node has stopped being needed.

mod address;
mod ending;
pub(crate) mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use service::config::Config;
use service::secrets::Secrets;
use service::tasks::Tasks;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::api::{self, Api};
use crate::command::{Access, Rule};
use crate::machine::adapter::MachineAdapter;
use crate::machine::base::Base;
use crate::machine::host::{Machine, MachineSettings};
use crate::metrics::NodeMetrics;
use crate::raft;
use crate::raft::clock::Heard;
use crate::raft::desk::Desk;
use crate::raft::identity::Identity;
use crate::raft::intake::Intake;
use crate::raft::log::{LogStore, Opened};
use crate::raft::mirrors::MirrorDesk;
use crate::raft::network::client::PeerNetworkFactory;
use crate::raft::network::handshake::Trust;
use crate::raft::network::server::PeerServer;
use crate::raft::network::taken::Taken;
use crate::raft::peers::Peers;
use crate::raft::start::{TokenSeeds, join_or_make, root_rules};
use crate::raft::types::Raft;
use crate::raft::view;
use crate::storage::closing::Closed;
use crate::storage::files;
use crate::store::Store;
use crate::upkeep::{self, BackupFolder, Upkeep};

const DRAIN: Duration = Duration::from_secs(5);
/// What was applied is brought to disk within this, or read from the log at the next start.
const FLUSH: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(3);

/// What a node needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    pub id: u64,
    /// This node's own folder.
    pub data: PathBuf,
    pub secrets: Secrets,
}

/// Serves until `tasks` is told to stop; an error is one that this node must not outlive.
pub async fn run(
    settings: Settings,
    clients: TcpListener,
    peers: TcpListener,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let name = format!("n{}", settings.id);
    let _lock = folder::lock(&settings.data)?;
    // Before room is waited for: half a backup may be what takes it.
    remove_half_a_backup(&settings, name.clone()).await?;
    if !upkeep::wait_for_room(&settings.data, &settings.config.limits, &tasks).await {
        return Ok(());
    }
    // Stopped after the hand-over, not together with the signal.
    let (edge, inner) = (Tasks::new(), Tasks::new());
    let node = Node::open(&settings, &inner)
        .await
        .with_context(|| format!("start node {name}"))?;
    address::tell_if_moved(&node.desk.raft, &settings).await?;
    inner.spawn("peer-port", Arc::clone(&node.server).serve(peers));
    let store = Store::start(
        name.clone(),
        Arc::clone(&node.desk),
        (inner.clone(), edge.clone()),
        &settings.config.limits,
        fingerprint_key(&settings.secrets),
        settings.data.clone(),
    );
    let app = service::edge::wrap(
        api::router(Api::new(store.clone(), settings.config.limits.clone())),
        &name,
    );
    let limits = service::serve::Limits::from(&settings.config.limits);
    let serving = edge.spawn(
        "client-port",
        service::serve::serve(clients, app, limits, edge.clone()),
    );
    let upkeep = Upkeep {
        desk: Arc::clone(&node.desk),
        store: store.clone(),
        tasks: inner.clone(),
        folder: settings.data.clone(),
    };
    upkeep.start(&settings.config, token_seeds(&settings.secrets));
    tracing::info!(node.name = name, "serving");
    let outcome = node.live(&settings.config, &tasks).await;
    store.set_stopping();
    if outcome.is_ok() {
        ending::hand_over(&node.desk).await;
    }
    edge.stop();
    edge.drain(DRAIN).await;
    if let Ok(Err(error)) = serving.await {
        tracing::warn!(%error, "the client port ended with an error");
    }
    let has_ended = ending::end_raft(&node.desk.raft, &inner, DRAIN).await;
    // What failed leaves its reason, and the log has everything that was not flushed. What did not end waits for the disk,
    // as this would.
    if outcome.is_ok() && has_ended {
        ending::flush(&node.desk.machine, FLUSH).await?;
    }
    drop(store);
    node.close().await;
    outcome
}

/// A disk that hangs there keeps no node from starting; should it come back when this node is at a backup, that one
/// fails and is made again. Whoever belongs to no cluster has begun none.
async fn remove_half_a_backup(settings: &Settings, name: String) -> anyhow::Result<()> {
    let identity = Identity::of(&settings.data).with_context(|| format!("start node {name}"))?;
    if let Some(cluster_id) = identity.and_then(|identity| identity.cluster_id()) {
        let backups = BackupFolder::of(&settings.config.backup_folder(), &cluster_id);
        let removing = tokio::task::spawn_blocking(move || backups.remove_leftovers(&name));
        tokio::time::timeout(FLUSH, removing).await.ok();
    }
    Ok(())
}

/// What a node has on its disk.
struct Storage {
    identity: Identity,
    machine: Arc<Machine>,
    log: LogStore,
    opened: Opened,
    log_failed: oneshot::Receiver<std::io::Error>,
}

impl Storage {
    /// Refuses a folder that is not what this node left.
    fn open(settings: &Settings, metrics: &Arc<NodeMetrics>) -> anyhow::Result<Self> {
        let data = &settings.data;
        let identity = Identity::load_or_create(data, settings.id)?;
        let machine = Machine::open(data, machine_settings(&settings.config), Arc::clone(metrics))
            .context("open the state machine")?;
        folder::has_its_log(data, &identity, &machine)?;
        let snapshot = machine.snapshot_end();
        let (log, opened, log_failed) = LogStore::open(
            &data.join("raft"),
            (snapshot, identity.starts()),
            LOG_MEMTABLE_BYTES,
            Arc::clone(metrics),
        )
        .context("open the log")?;
        identity.count_start()?;
        // As if they had been applied just now, so that the next snapshot is not later for the start.
        machine
            .applied_bytes
            .store(opened.bytes_covered + opened.bytes, Ordering::Relaxed);
        machine
            .snapshot_bytes
            .store(opened.bytes_covered, Ordering::Relaxed);
        files::sync_folder(data)?;
        folder::log_is_no_older(data, &machine, &opened, snapshot.as_ref())?;
        Ok(Self {
            identity,
            machine,
            log,
            opened,
            log_failed,
        })
    }
}

struct Node {
    desk: Arc<Desk>,
    server: Arc<PeerServer>,
    log_closed: Closed,
    log_failed: tokio::sync::Mutex<oneshot::Receiver<std::io::Error>>,
}

impl Node {
    async fn open(settings: &Settings, tasks: &Tasks) -> anyhow::Result<Self> {
        let config = &settings.config;
        let metrics = Arc::new(NodeMetrics::new());
        let Storage {
            identity,
            machine,
            log,
            opened,
            log_failed,
        } = Storage::open(settings, &metrics)?;
        let log_closed = log.closed();
        let bound = Arc::clone(&machine);
        let trust = Arc::new(Trust {
            identity,
            secret: settings.secrets.keys.cluster.expose().as_bytes().to_vec(),
            tls: service::tls::of_process().cloned(),
            bound_disk: Box::new(move |id| bound.generation().db().member_disk(id)),
        });
        let factory = PeerNetworkFactory {
            trust: Arc::clone(&trust),
            tasks: tasks.clone(),
            metrics: Arc::clone(&metrics),
            damage: Arc::clone(&machine.damage),
        };
        let adapter = MachineAdapter::start(Arc::clone(&machine), log.flushed())?;
        let raft = Raft::new(
            settings.id,
            raft::config::openraft_config(config, settings.id)?,
            factory,
            log,
            adapter,
        )
        .await?;
        if let Some(end) = opened.lost_up_to {
            tracing::error!(
                raft.index = end,
                "entries that were once on this disk are gone: this node neither votes nor leads until it has them again"
            );
            raft.runtime_config().elect(false);
        }
        let links = Arc::new(Peers::new(Arc::clone(&trust), tasks.clone()));
        let desk = Arc::new(Desk {
            intake: Intake::start(raft.clone(), Arc::clone(&machine), tasks, Arc::clone(&metrics)),
            mirrors: MirrorDesk::new(Arc::clone(&machine)),
            raft,
            machine,
            peers: links,
            metrics,
            heard: Heard::default(),
            taken: Taken::default(),
            disk_full: AtomicBool::new(false),
            // A follower waits out the lease, which is its longest timeout, and then one of its own.
            undisputed: Duration::from_millis(2 * config.store.election_min_ms),
        });
        let server = PeerServer::new(
            Arc::clone(&desk),
            trust,
            tasks.clone(),
            config.store.fast_failover,
            opened.lost_up_to,
        );
        Ok(Self {
            desk,
            server,
            log_closed,
            log_failed: tokio::sync::Mutex::new(log_failed),
        })
    }

    /// Waits until threads and tasks that end by themselves have let go of the databases.
    async fn close(self) {
        let machine_closed = self.desk.machine.generation().db().closing.closed();
        let Self {
            desk,
            server,
            log_closed,
            ..
        } = self;
        drop((desk, server));
        let closed = async {
            log_closed.wait().await;
            machine_closed.wait().await;
        };
        if tokio::time::timeout(CLOSE, closed).await.is_err() {
            tracing::warn!("the databases are still in use; this process ends without closing them");
        }
    }

    /// Until told to stop, or until something broke that must not be outlived.
    async fn live(&self, config: &Config, tasks: &Tasks) -> anyhow::Result<()> {
        tokio::select! {
            () = tasks.stopping() => return Ok(()),
            joined = join_or_make(&self.desk, config) => joined?,
            failed = self.failure() => return Err(failed),
        }
        tokio::select! {
            () = tasks.stopping() => Ok(()),
            failed = self.failure() => Err(failed),
            never = self.regain_vote() => never,
        }
    }

    async fn failure(&self) -> anyhow::Error {
        let mut log_failed = self.log_failed.lock().await;
        tokio::select! {
            biased;
            failed = &mut *log_failed => match failed {
                Ok(error) => anyhow::Error::new(error).context("write the log: what is not on disk must not be acknowledged, so this node ends"),
                Err(_) => anyhow::anyhow!("the log's writer ended"),
            },
            // Before what follows from it: it says what to do.
            damage = self.desk.machine.damage.found() => anyhow::anyhow!(damage),
            fatal = view::stopped(&self.desk.raft) => anyhow::anyhow!("Raft has stopped: {fatal}"),
        }
    }

    /// Lets a node that lost entries campaign again once it has them back; never returns.
    async fn regain_vote(&self) -> anyhow::Result<()> {
        if let Some(end) = self.server.lost_up_to {
            let mut progress = self.desk.machine.progress();
            progress.wait_for(|progress| progress.applied_end >= end).await?;
            tracing::info!(
                raft.index = end,
                "the lost entries are back: this node votes again"
            );
            self.desk.raft.runtime_config().elect(true);
        }
        std::future::pending().await
    }
}

/// Also the size of a WAL file: small, so that files are soon there to be written over.
fn machine_settings(config: &Config) -> MachineSettings {
    MachineSettings {
        memtable_bytes: config.store.memtable_mib << 20,
        cache_bytes: config.store.block_cache_mib << 20,
        ring_bytes: config.limits.watch_buffer_bytes_max,
        records_bytes: config.store.records_cache_mib << 20,
        heads_bytes: config.store.heads_cache_mib << 20,
    }
}

const LOG_MEMTABLE_BYTES: usize = 16 << 20;

fn fingerprint_key(secrets: &Secrets) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"menagerie fingerprint of requests");
    hash.update(secrets.keys.cluster.expose().as_bytes());
    hash.finalize().to_vec()
}

fn token_seeds(secrets: &Secrets) -> TokenSeeds {
    let seeds = secrets.store_tokens().into_iter().map(|seed| {
        let rules = if seed.name == "root" {
            root_rules()
        } else {
            let access = |access| match access {
                service::secrets::Access::Read => Access::Read,
                service::secrets::Access::Write => Access::Write,
            };
            seed.rules
                .into_iter()
                .map(|(prefix, granted)| Rule {
                    prefix: prefix.clone().into(),
                    access: access(granted),
                })
                .collect()
        };
        (
            seed.name.clone(),
            Sha256::digest(seed.secret.expose().as_bytes()).into(),
            rules,
        )
    });
    seeds.collect()
}
