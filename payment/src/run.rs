//! The process: serves, sweeps, stays registered, and stops in order.
//! Invariant: it is registered only while it serves, and every task ends before `run` does.

use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::{KvClient, Reads, Registration};
use payment_client::Currency;
use service::config::Config;
use service::metrics::Metrics;
use service::secrets::{Secret, Secrets};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use service::{edge, time};
use tokio::net::TcpListener;

use crate::demo;
use crate::domain::MerchantName;
use crate::http::{self, App, Counters, Throttle};
use crate::ledger::Ledger;
use crate::points::Points;
use crate::vault::Vault;

/// The sweeper is in no hurry.
const SWEEP_DEADLINE: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What an instance needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    /// Such as `pay1`.
    pub name: String,
    /// Where others reach it, as the registry tells them.
    pub address: String,
    pub secrets: Secrets,
    pub points: Points,
}

/// Serves until `tasks` is told to stop.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let config = &settings.config.payment;
    let name = settings.name.clone();
    // Stopped after the registration is taken back, so that nobody is sent to a closed door.
    let (edge, inner) = (Tasks::new(), Tasks::new());
    let client = client(&settings, &inner)?;
    let metrics = Metrics::new();
    let counters = Counters::new(&metrics);
    let vault = Vault::new(&settings.secrets.keys.card_hmac_1);
    let ledger = Ledger::new(client.clone(), config, settings.points.clone());
    let app = App {
        ledger: ledger.clone(),
        vault: vault.clone(),
        config: config.clone(),
        merchant: MerchantName::parse(&config.merchant).context("read payment.merchant")?,
        currency: config
            .currency
            .parse::<Currency>()
            .context("read payment.currency")?,
        merchant_token: token(&settings.secrets, "merchant")?,
        operator_token: token(&settings.secrets, "operator")?,
        metrics,
        counters: counters.clone(),
        checks: App::checks(),
        throttle: Throttle::new(config.open_per_s_max),
    };
    let app = edge::wrap(http::router(app), &name);
    let limits = Limits::from(&settings.config.limits);
    let serving = edge.spawn("port", serve::serve(listener, app, limits, edge.clone()));
    if config.demo {
        let (ledger, vault, stop) = (ledger.clone(), vault, inner.clone());
        inner.spawn(
            "demo cards",
            async move { open_demo(&ledger, &vault, &stop).await },
        );
    }
    let every = Duration::from_millis(config.sweep_every_ms);
    let sweeper = sweep(
        ledger.with_deadline(SWEEP_DEADLINE),
        counters,
        every,
        inner.clone(),
    );
    inner.spawn("sweeper", sweeper);
    let registration = Registration {
        service: "payment".to_owned(),
        name: name.clone(),
        address: settings.address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: time::now_ms(),
    };
    let ttl = Duration::from_millis(config.registration_ms);
    let registered = inner.spawn("registration", {
        let client = client.clone();
        async move { client.keep_registered(registration, ttl).await }
    });
    tracing::info!(process.name = name, address = settings.address, "serving");
    tasks.stopping().await;
    inner.stop();
    if registered.await.is_err() {
        tracing::warn!("the registration ended by a panic");
    }
    edge.stop();
    edge.drain(DRAIN).await;
    inner.drain(DRAIN).await;
    serving
        .await
        .context("serve")?
        .context("end the port in an orderly way")
}

fn client(settings: &Settings, tasks: &Tasks) -> anyhow::Result<KvClient> {
    let token = token(&settings.secrets, "payment")?;
    let deadline = Duration::from_millis(settings.config.payment.request_ms_max);
    let client = KvClient::builder(settings.config.client_addresses())
        .token(token.expose())
        .reads(Reads::Leader)
        .deadline(deadline)
        .tasks(tasks.clone());
    client.build().context("make a client of the store")
}

fn token(secrets: &Secrets, name: &str) -> anyhow::Result<Secret> {
    let token = secrets.token(name).cloned();
    token.with_context(|| format!("secrets.toml has no token for {name}"))
}

/// The store may come up after this process.
async fn open_demo(ledger: &Ledger, vault: &Vault, stop: &Tasks) {
    while let Err(problem) = demo::open_cards(ledger, vault).await {
        tracing::debug!(%problem, "the cards for trying out are not open yet");
        if tokio::time::timeout(RETRY_PAUSE, stop.stopping()).await.is_ok() {
            return;
        }
    }
}

async fn sweep(ledger: Ledger, counters: Counters, every: Duration, stop: Tasks) {
    let mut more = false;
    loop {
        // What is left of a full sweep need not wait; half of the pause is drawn, so that instances take turns.
        let pause = if more { Duration::ZERO } else { jitter(every) };
        if tokio::time::timeout(pause, stop.stopping()).await.is_ok() || stop.is_stopping() {
            return;
        }
        let swept = tokio::select! {
            swept = ledger.sweep() => swept,
            () = stop.stopping() => return,
        };
        match swept {
            Ok(swept) => {
                more = swept.more;
                counters.swept.with_label_values(&["hold"]).inc_by(swept.holds);
                counters.swept.with_label_values(&["mark"]).inc_by(swept.marks);
                if swept.holds > 0 {
                    tracing::info!(holds = swept.holds, "released holds that have expired");
                }
            }
            Err(problem) => {
                more = false;
                tracing::debug!(%problem, "could not sweep");
            }
        }
    }
}

fn jitter(pause: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    pause / 2 + (pause / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}
