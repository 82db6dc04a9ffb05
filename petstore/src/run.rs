//! The process: serves, carries orders on, stays registered, and stops in order.
//! Invariant: it is registered only while it serves, and every task ends before `run` does. What it leaves unfinished
//! is in the store, where others find it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::{KvClient, Reads, Registration};
use payment_client::{Currency, Money, PaymentClient};
use service::config::Config;
use service::metrics::Metrics;
use service::secrets::{Secret, Secrets};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use service::{edge, time};
use tokio::net::TcpListener;

use crate::demo;
use crate::http::{self, App, Counters};
use crate::points::Points;
use crate::shop::{Catalogue, Parts, Shop};
use crate::store::{Keys, Store};

/// The sweeper is in no hurry.
const SWEEP_DEADLINE: Duration = Duration::from_secs(10);
/// Of the watches that one node of the store serves, those have this part who wait for orders at one instance.
const PART_OF_WATCHES: usize = 8;
const DRAIN: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What an instance needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    /// Such as `shop1`.
    pub name: String,
    /// Where others reach it, as the registry tells them.
    pub address: String,
    pub secrets: Secrets,
    pub points: Points,
}

/// Serves until `tasks` is told to stop.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    // Stopped one after the other: first nobody is sent here any more, then the port, then what goes on behind it.
    let (front, edge, inner) = (Tasks::new(), Tasks::new(), Tasks::new());
    let metrics = Metrics::new();
    let counters = Counters::new(&metrics);
    let shop = Arc::new(OnceLock::new());
    let app = App {
        shop: shop.clone(),
        config: settings.config.shop.clone(),
        name: settings.name.clone(),
        operator_token: token(&settings.secrets, "operator")?,
        metrics,
        counters: counters.clone(),
    };
    let app = edge::wrap(http::router(app), &settings.name);
    let limits = Limits::from(&settings.config.limits);
    let serving = edge.spawn("port", serve::serve(listener, app, limits, edge.clone()));
    let opening = Opening::new(&settings, (&front, &inner), counters)?;
    let opened = {
        let (settings, front, inner) = (settings.clone(), front.clone(), inner.clone());
        inner.clone().spawn(
            "opening",
            Box::pin(async move {
                if let Some(opened) = opening.open_until_stopped(&inner).await
                    && shop.set(opened.clone()).is_ok()
                {
                    begin(&settings, &opened, &front, &inner)?;
                }
                anyhow::Ok(())
            }),
        )
    };
    tracing::info!(
        process.name = settings.name,
        address = settings.address,
        "serving"
    );
    tasks.stopping().await;
    front.stop();
    front.drain(DRAIN).await;
    edge.stop();
    edge.drain(DRAIN).await;
    inner.stop();
    inner.drain(DRAIN).await;
    opened.await.context("open the shop")??;
    serving
        .await
        .context("serve")?
        .context("end the port in an orderly way")
}

/// Everything that a shop is made of but what must be read from the store.
struct Opening {
    client: KvClient,
    payment: PaymentClient,
    settings: Settings,
    secret: Secret,
    currency: Currency,
    counters: Counters,
    tasks: Tasks,
    closing: Tasks,
}

impl Opening {
    fn new(
        settings: &Settings,
        (front, inner): (&Tasks, &Tasks),
        counters: Counters,
    ) -> anyhow::Result<Self> {
        let config = &settings.config;
        let deadline = Duration::from_millis(config.shop.request_ms_max);
        let merchant = token(&settings.secrets, "merchant")?;
        // Without any, orders with a card are refused; all else works.
        let mut addresses = config.payment.addresses.clone();
        if addresses.is_empty() {
            addresses.push("127.0.0.1:4001".to_owned());
        }
        let payment = PaymentClient::builder(addresses, merchant.expose());
        Ok(Self {
            client: client(settings, inner)?,
            payment: payment
                .deadline(deadline)
                .build()
                .context("make a client of the payment service")?,
            settings: settings.clone(),
            secret: token(&settings.secrets, "petstore")?,
            currency: config.shop.currency.parse().context("read shop.currency")?,
            counters,
            tasks: inner.clone(),
            closing: front.clone(),
        })
    }

    /// The store may come up after this process.
    async fn open_until_stopped(self, stop: &Tasks) -> Option<Shop> {
        loop {
            match self.open().await {
                Ok(shop) => return Some(shop),
                Err(error) => tracing::debug!(error = format!("{error:#}"), "the shop is not open yet"),
            }
            if tokio::time::timeout(RETRY_PAUSE, stop.stopping()).await.is_ok() {
                return None;
            }
        }
    }

    async fn open(&self) -> anyhow::Result<Shop> {
        let config = &self.settings.config.shop;
        let keys = Keys::of_shop(&config.name);
        let store = Store::new(self.client.clone(), keys.clone(), config.answer_s * 1000);
        if config.demo {
            demo::stock_shelves(&store).await?;
        }
        let catalogue = Catalogue::open(&self.client, &keys).await?;
        let shop = Shop::new(Parts {
            store,
            catalogue,
            payment: self.payment.clone(),
            config: config.clone(),
            waits_max: (self.settings.config.limits.watchers_max / PART_OF_WATCHES).max(1),
            currency: self.currency,
            amount_minor_max: amount_minor_max(&self.settings.config),
            instance: format!("{}-{:016x}", self.settings.name, getrandom::u64()?),
            secret: self.secret.clone(),
            points: self.settings.points.clone(),
            tasks: self.tasks.clone(),
            closing: self.closing.clone(),
            counted: self.counters.orders.clone(),
        });
        shop.open_admin(self.settings.secrets.shop.admin_password.expose())
            .await?;
        Ok(shop)
    }
}

/// What goes on beside the requests, from the moment the shop is there.
fn begin(settings: &Settings, shop: &Shop, front: &Tasks, inner: &Tasks) -> anyhow::Result<()> {
    let (alive, name) = (shop.clone(), settings.name.clone());
    inner.spawn("alive", async move { alive.stay_alive(&name).await });
    let adopting = shop.clone();
    inner.spawn("adopting", async move { adopting.adopt_until_stopped().await });
    // In either mode: what was begun by letters is finished by letters.
    let delivering = shop.clone();
    inner.spawn(
        "post office",
        async move { delivering.deliver_until_stopped().await },
    );
    let every = Duration::from_millis(settings.config.shop.sweep_every_ms);
    let store = shop.store.with_deadline(SWEEP_DEADLINE);
    inner.spawn("sweeper", sweep(store, every, inner.clone()));
    let registration = Registration {
        service: "petstore".to_owned(),
        name: settings.name.clone(),
        address: settings.address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: time::now_ms(),
    };
    let ttl = Duration::from_millis(settings.config.shop.registration_ms);
    let registering = client(settings, front)?;
    front.spawn("registration", async move {
        registering.keep_registered(registration, ttl).await;
    });
    Ok(())
}

fn client(settings: &Settings, tasks: &Tasks) -> anyhow::Result<KvClient> {
    let token = token(&settings.secrets, "petstore")?;
    let deadline = Duration::from_millis(settings.config.shop.request_ms_max);
    let client = KvClient::builder(settings.config.client_addresses())
        .token(token.expose())
        .reads(Reads::Leader)
        .deadline(deadline)
        .tasks(tasks.clone());
    client.build().context("make a client of the store")
}

/// As the payment service reads the same setting.
fn amount_minor_max(config: &Config) -> i64 {
    let max = i64::try_from(config.payment.amount_minor_max).unwrap_or(Money::MINOR_MAX);
    max.min(Money::MINOR_MAX)
}

fn token(secrets: &Secrets, name: &str) -> anyhow::Result<Secret> {
    let token = secrets.token(name).cloned();
    token.with_context(|| format!("secrets.toml has no token for {name}"))
}

async fn sweep(store: Store, every: Duration, stop: Tasks) {
    let mut pause = every;
    while tokio::time::timeout(pause, stop.stopping()).await.is_err() {
        let swept = tokio::select! {
            swept = store.sweep() => swept,
            () = stop.stopping() => return,
        };
        // What is left of a full sweep need not wait.
        pause = if matches!(swept, Ok(true)) {
            Duration::ZERO
        } else {
            every
        };
        if let Err(problem) = swept {
            tracing::debug!(%problem, "could not sweep");
        }
    }
}
