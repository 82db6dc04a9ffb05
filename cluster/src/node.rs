//! `menagerie node --id N`: one node of the store, in this process.
//! Invariant: both ports are bound before the store opens its files, so that a taken port harms nothing.

use std::num::NonZero;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kvstore::Settings;
use service::tasks::Tasks;
use service::telemetry::{self, Format};
use service::{config::Config, secrets};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::context::Context;
use crate::launcher::ports;
use crate::output::Usage;
use crate::process::Supervised;

/// Up to so many cores, one thread for everything on the network was measured to be faster than several.
const SINGLE_THREAD_CORES_MAX: usize = 4;

/// How long the process waits in the end for what waits for its disk.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Node {
    /// Which node of the configuration this process is
    #[arg(long, value_name = "N")]
    id: u64,
    #[command(flatten)]
    supervised: Supervised,
}

impl Node {
    pub(crate) fn name(&self) -> String {
        format!("n{}", self.id)
    }

    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let name = self.name();
        self.supervised.begin()?;
        telemetry::init(&name, Format::Auto)?;
        let runtime = runtime(context.config.store.worker_threads).context("start the runtime")?;
        let outcome = runtime.block_on(serve(self.id, context));
        runtime.shutdown_timeout(LEFT_BEHIND);
        outcome
    }
}

async fn serve(id: u64, context: Context) -> anyhow::Result<()> {
    let Some(node) = context.config.node(id) else {
        let ids: Vec<String> = context
            .config
            .nodes
            .iter()
            .map(|node| node.id.to_string())
            .collect();
        let ids = ids.join(", ");
        return Err(Usage(format!("the configuration has no node {id}; it has: {ids}")).into());
    };
    let client = bind(node.listens_to_clients()).await?;
    let peer = bind(node.listens_to_peers()).await?;
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let settings = Settings {
        data: context.data.join(node.name()),
        config: Config {
            data: context.data,
            ..context.config
        },
        id,
        secrets,
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    kvstore::run(settings, client, peer, tasks).await
}

pub(crate) async fn bind(address: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => Err(anyhow::anyhow!(ports::explain(address, &error))),
    }
}

/// As many threads as the configuration says, or else as many as suit the machine. What a node is compared with runs
/// in the same way.
pub(crate) fn runtime(worker_threads: usize) -> std::io::Result<Runtime> {
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
