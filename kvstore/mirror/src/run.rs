//! The process: copies, serves, stays registered, tells the store how far it is, and stops in order.
//! Invariant: what was told to the store is on the disk, whenever this ends; every task ends before `run` does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::{KvClient, Registration};
use service::config::Config;
use service::metrics::Metrics;
use service::secrets::Secrets;
use service::serve::{self, Limits};
use service::tasks::Tasks;
use service::{edge, time};
use tokio::net::TcpListener;

use crate::acks::Acks;
use crate::copy::{self, Head};
use crate::follow::Follower;
use crate::http::{self, App};
use crate::progress::Progress;
use crate::writer;

const DRAIN: Duration = Duration::from_secs(5);
const REGISTRATION: Duration = Duration::from_secs(6);

/// What a mirror needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    /// Such as `mirror-sync`; the configuration has a mirror of this name.
    pub name: String,
    /// Where others reach it, as the registry tells them.
    pub address: String,
    /// This mirror's own folder.
    pub data: PathBuf,
    pub secrets: Secrets,
}

/// Serves until `tasks` is told to stop.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let name = settings.name.clone();
    let mirror = settings.config.mirror(&name).cloned();
    let mirror = mirror.with_context(|| format!("the configuration has no mirror {name}"))?;
    let _lock = lock_folder(&settings.data)?;
    let (edge, inner) = (Tasks::new(), Tasks::new());
    let token = settings.secrets.token("mirror");
    let client = KvClient::builder(settings.config.client_addresses())
        .token(token.context("secrets.toml has no token for mirror")?.expose())
        .tasks(inner.clone())
        .build()
        .context("make a client of the store")?;
    let folder = settings.data.clone();
    let (engine, mode) = (mirror.engine, mirror.mode);
    let free_bytes_min = settings.config.limits.disk_free_bytes_min;
    let opened = tokio::task::spawn_blocking(move || copy::open(&folder, engine, mode, free_bytes_min));
    let (writer, reader) = opened.await?.context("open the copy")?;
    let head = writer.head();
    say_what_is_there(&head);
    let progress = Arc::new(Progress::new(head.revision, head.incarnation));
    let orders = writer::start(writer, Arc::clone(&progress), &mirror, &inner);
    let app = App::new(
        &settings,
        mirror.clone(),
        client.clone(),
        Arc::new(reader),
        Arc::clone(&progress),
        orders.clone(),
        Metrics::new(),
    )?;
    let app = edge::wrap(http::router(app), &name);
    let limits = Limits::from(&settings.config.limits);
    let serving = edge.spawn("port", serve::serve(listener, app, limits, edge.clone()));
    let follower = Follower {
        client: client.clone(),
        orders,
        progress: Arc::clone(&progress),
        tasks: inner.clone(),
    };
    inner.spawn("follower", follower.run());
    let acks = Acks {
        client: client.clone(),
        config: mirror,
        progress,
        tasks: inner.clone(),
    };
    inner.spawn("acks", acks.run());
    let registration = Registration {
        service: "mirror".to_owned(),
        name: name.clone(),
        address: settings.address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: time::now_ms(),
    };
    inner.spawn("registration", async move {
        client.keep_registered(registration, REGISTRATION).await;
    });
    tracing::info!(process.name = name, address = settings.address, "serving");
    tasks.stopping().await;
    edge.stop();
    edge.drain(DRAIN).await;
    inner.stop();
    inner.drain(DRAIN).await;
    serving
        .await
        .context("serve")?
        .context("end the port in an orderly way")
}

/// Before writes wait for it to be made anew, and nobody knows why.
fn say_what_is_there(head: &Head) {
    tracing::info!(revision = head.revision, "the copy is open");
    if head.lacks_aside {
        tracing::warn!(
            "an earlier version wrote this copy, perhaps without leases and kept answers: it is made anew, this once, and \
             whoever waits for this mirror waits until that is done"
        );
    }
}

/// Two processes that write one copy would each believe to be the mirror.
fn lock_folder(folder: &std::path::Path) -> anyhow::Result<std::fs::File> {
    copy::make_folder(folder)?;
    let path = folder.join("LOCK");
    let mut options = std::fs::File::options();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another process uses {}", folder.display()))?;
    Ok(file)
}
