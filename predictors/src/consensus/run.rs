//! The process of the consensus.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use service::config::Config;
use service::metrics::Metrics;
use service::problem::{self, Result};
use service::tasks::Tasks;
use tokio::net::TcpListener;

use super::ask::Asker;
use super::http::{self, App};
use super::network::{Bank, OPS_MAX};
use super::settler::Settler;
use super::sweep;
use crate::process::{Life, Settings};
use crate::stakes::Params;
use crate::wire::Shape;

const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Serves until `tasks` is told to stop. The models of the configuration join at the first start.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let config = settings.config.consensus.clone();
    let life = Life::begin(&settings)?;
    let shape = Shape {
        features: config.features.clone(),
        classes: config.classes.clone(),
    };
    let bank = Bank {
        client: life.client.clone(),
        params: Params::default(),
        classes: shape.classes.len(),
        config: config.clone(),
        ops_max: settings.config.limits.txn_ops_max.min(OPS_MAX),
    };
    let settler = Settler::start(bank.clone(), shape.clone(), &life.last);
    let metrics = Metrics::new();
    let app = App::new(
        &settings,
        (bank.clone(), Asker::new(&config, &settings.secrets), settler),
        shape,
        metrics,
        life.inner.clone(),
    );
    let app = Arc::new(app.context("read the tokens")?);
    let (founding, stop) = (bank.clone(), life.inner.clone());
    let everything = settings.config.clone();
    life.inner.spawn("founding", async move {
        // The store may come up after this process.
        while let Err(problem) = found(&founding, &everything).await {
            tracing::debug!(%problem, "the network is not set up yet");
            if tokio::time::timeout(RETRY_PAUSE, stop.stopping()).await.is_ok() {
                return;
            }
        }
    });
    life.inner.spawn("sweeper", sweep::run(bank, life.inner.clone()));
    life.serve(&settings, http::router(app), listener, tasks).await
}

/// The book, and the models of the configuration: each joins once, one that left stays away, and one that moved is
/// asked where it is now.
async fn found(bank: &Bank, config: &Config) -> Result<()> {
    bank.found().await?;
    let mut places = Vec::new();
    for model in &config.models {
        let left = super::keys::left(&model.name);
        let left = bank.client.get(&left).await.map_err(crate::process::trouble)?;
        if left.is_some() {
            continue;
        }
        let url = match bank.place(&service::http::base(&model.address)) {
            Ok(url) => url,
            Err(fault) => {
                tracing::warn!(model.name = model.name, fault, "this model cannot join");
                continue;
            }
        };
        places.push((model.name.as_str(), url.clone()));
        match bank
            .register((&model.name, &url), bank.params.deposit_micro, None)
            .await
        {
            Ok(_) => tracing::info!(model.name = model.name, "joined the network"),
            Err(problem) if problem.kind == problem::OUTCOME_UNKNOWN || problem.kind.status == 503 => {
                return Err(problem);
            }
            Err(problem) => tracing::debug!(%problem, model.name = model.name, "did not join anew"),
        }
    }
    // Those that joined before may have moved since.
    bank.relocate(&places).await
}
