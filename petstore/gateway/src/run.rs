//! The process: learns who is there, passes requests on, and stops in order.
//! Invariant: requests that have begun end before it does, and streams are ended for their readers to come back
//! elsewhere.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::config::Config;
use service::edge;
use service::http::Timeouts;
use service::metrics::Metrics;
use service::secrets::Secrets;
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::http::{self, App, Counters, Times};
use crate::refresh;
use crate::roster::Roster;

/// So many bodies of the largest size are held at the same time, or more smaller ones; and as many answers.
const BODIES_HELD: usize = 64;
const DRAIN: Duration = Duration::from_secs(5);

/// What a gateway needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    pub name: String,
    pub secrets: Secrets,
}

/// Serves until `tasks` is told to stop.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let (edge, inner) = (Tasks::new(), Tasks::new());
    let token = |name: &str| {
        let token = settings.secrets.token(name).cloned();
        token.with_context(|| format!("secrets.toml has no token for {name}"))
    };
    let client = KvClient::builder(settings.config.client_addresses())
        .token(token("gateway")?.expose())
        .tasks(inner.clone())
        .build()
        .context("make a client of the store")?;
    let roster = Arc::new(Roster::new());
    let metrics = Metrics::new();
    let held_max = settings.config.gateway.body_bytes_max.saturating_mul(BODIES_HELD);
    let answer_max = usize::try_from(settings.config.gateway.answer_bytes_held);
    let answer_max = answer_max.context("read gateway.answer_bytes_held")?;
    let app = App {
        roster: Arc::clone(&roster),
        config: settings.config.gateway.clone(),
        times: Times::of(&settings.config),
        pooled: service::http::client(Timeouts::default()),
        unpooled: service::http::client(Timeouts {
            idle_per_host_max: 0,
            ..Timeouts::default()
        }),
        held: Semaphore::new(held_max),
        answers: Arc::new(Semaphore::new(answer_max.saturating_mul(BODIES_HELD))),
        counters: Counters::new(&metrics),
        metrics,
        operator_token: token("operator")?,
        stop: tasks.clone(),
    };
    let probing = refresh::probe(app.pooled.clone(), Arc::clone(&roster), inner.clone());
    inner.spawn("probes", probing);
    inner.spawn("registry", refresh::follow(client, roster, inner.clone()));
    let app = edge::wrap(http::router(app), &settings.name);
    let limits = Limits::from(&settings.config.limits);
    let serving = edge.spawn("port", serve::serve(listener, app, limits, edge.clone()));
    tracing::info!(process.name = settings.name, "serving");
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
