//! `menagerie node --id N`: one node of the store, in this process.
//! Invariant: both ports are bound before the store opens its files, so that a taken port harms nothing;
//! with `--die-with-parent` the process never outlives its supervisor, even if that is killed with kill -9.

use std::io::{ErrorKind, Read};
use std::num::NonZero;

use anyhow::Context as _;
use clap::Args;
use kvstore::Settings;
use rustix::process::{Signal, getpid, kill_process};
use service::tasks::Tasks;
use service::telemetry::{self, Format};
use service::{config::Config, secrets};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::context::Context;
use crate::launcher::ports;
use crate::output::Usage;

/// Up to so many cores, one thread for everything on the network was measured to be faster than several.
const SINGLE_THREAD_CORES_MAX: usize = 4;

#[derive(Args)]
pub(crate) struct Node {
    /// Which node of the configuration this process is
    #[arg(long, value_name = "N")]
    id: u64,
    /// End at once when the process that started this one ends (it holds our stdin open)
    #[arg(long)]
    die_with_parent: bool,
}

impl Node {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        if self.die_with_parent {
            die_with_parent()?;
        }
        telemetry::init(&format!("n{}", self.id), Format::Auto)?;
        let runtime = runtime(context.config.store.worker_threads).context("start the runtime")?;
        runtime.block_on(self.serve(context))
    }

    async fn serve(self, context: Context) -> anyhow::Result<()> {
        let Some(node) = context.config.node(self.id) else {
            let ids: Vec<String> = context
                .config
                .nodes
                .iter()
                .map(|node| node.id.to_string())
                .collect();
            let ids = ids.join(", ");
            return Err(Usage(format!(
                "the configuration has no node {}; it has: {ids}",
                self.id
            ))
            .into());
        };
        let client = bind(&node.client).await?;
        let peer = bind(&node.peer).await?;
        let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
        let settings = Settings {
            data: context.data.join(node.name()),
            config: Config {
                data: context.data,
                ..context.config
            },
            id: self.id,
            secrets,
        };
        let tasks = Tasks::new();
        tasks.stop_on_signals().context("take over the signals")?;
        kvstore::run(settings, client, peer, tasks).await
    }
}

pub(crate) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => Err(anyhow::anyhow!(ports::explain(address, &error))),
    }
}

fn runtime(worker_threads: usize) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if worker_threads == 0 && cores <= SINGLE_THREAD_CORES_MAX {
        return tokio::runtime::Builder::new_current_thread().enable_all().build();
    }
    let threads = if worker_threads == 0 {
        cores / 2
    } else {
        worker_threads
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

/// Two ways, since neither is enough: the kernel's signal also ends a process that is stopped (Linux only),
/// and the end of stdin also tells of a parent that died before we asked for the signal.
pub(crate) fn die_with_parent() -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("ask for the parent's death")?;
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(|| {
            let mut stdin = std::io::stdin().lock();
            let mut ignored = [0; 64];
            loop {
                match stdin.read(&mut ignored) {
                    Ok(0) => break,
                    Err(error) if error.kind() != ErrorKind::Interrupted => break,
                    _ => {}
                }
            }
            // As sudden as the parent's death; the store's files are made for this.
            let _ = kill_process(getpid(), Signal::KILL);
        })
        .context("start the lifeline thread")?;
    Ok(())
}
