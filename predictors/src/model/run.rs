//! The process of one model.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::config::{Behaviour, PredictorConfig};
use service::metrics::Metrics;
use service::tasks::Tasks;
use tokio::net::TcpListener;

use super::behave::Manner;
use super::card::Card;
use super::http::{self, App, Ready};
use super::load::Recipe;
use crate::models::{Fitted, Predictor};
use crate::pass::pass;
use crate::process::{Life, Settings};

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Serves the model of `settings.name` until `tasks` is told to stop. It answers 503 until the model is loaded.
pub async fn run(settings: Settings, listener: TcpListener, tasks: Tasks) -> anyhow::Result<()> {
    let models = &settings.config.models;
    let config = models.iter().find(|model| model.name == settings.name);
    let config = config
        .cloned()
        .with_context(|| format!("the configuration has no predictor {:?}", settings.name))?;
    let life = Life::begin(&settings)?;
    let reading = config.clone();
    let recipe = life.inner.spawn_blocking("table", move || Recipe::read(&reading));
    let recipe = recipe.await.context("read the table")??;
    let metrics = Metrics::new();
    let consensus = &settings.config.consensus;
    let private = consensus
        .private_models
        .then(|| pass(&settings.secrets, &settings.address));
    let app = Arc::new(App::new(
        &settings,
        manner(&settings, &config)?,
        private,
        metrics,
        life.inner.clone(),
    )?);
    let (loading, client, stop) = (Arc::clone(&app), life.client.clone(), life.inner.clone());
    life.inner.spawn("load", async move {
        if let Some((card, fitted)) = obtain(recipe, &client, &stop).await {
            match Predictor::new(fitted) {
                Ok(predictor) => loading.load(Ready::new(card, predictor)),
                Err(error) => tracing::error!(error = format!("{error:#}"), "the model cannot serve"),
            }
        }
    });
    life.serve(&settings, http::router(app), listener, tasks).await
}

fn manner(settings: &Settings, config: &PredictorConfig) -> anyhow::Result<Manner> {
    let behaviour = match config.behave.as_str() {
        "" => None,
        words => Some(words.parse::<Behaviour>().context("read predictor.behave")?),
    };
    // Whoever copies takes the first honest model of the file.
    let mut models = settings.config.models.iter();
    let model = models.find(|other| other.name != config.name && other.behave.is_empty());
    Ok(Manner::new(
        behaviour,
        model.map(|model| model.address.clone()),
        config.seed,
    ))
}

/// Tries until it is there or the process stops: the store may come up after this process.
async fn obtain(recipe: Recipe, client: &KvClient, stop: &Tasks) -> Option<(Card, Fitted)> {
    let recipe = Arc::new(recipe);
    let mut learned: Option<(Card, Fitted)> = None;
    loop {
        match step(&recipe, client, stop, &mut learned).await {
            Ok(Some(model)) => return Some(model),
            Ok(None) => continue,
            Err(error) => tracing::debug!(error = format!("{error:#}"), "the model is not there yet"),
        }
        if tokio::time::timeout(RETRY_PAUSE, stop.stopping()).await.is_ok() {
            return None;
        }
    }
}

async fn step(
    recipe: &Arc<Recipe>,
    client: &KvClient,
    stop: &Tasks,
    learned: &mut Option<(Card, Fitted)>,
) -> anyhow::Result<Option<(Card, Fitted)>> {
    if let Some(model) = recipe.load(client).await? {
        tracing::info!(model.version = model.0.version, "loaded the model from the store");
        return Ok(Some(model));
    }
    if learned.is_none() {
        let recipe = Arc::clone(recipe);
        let work = stop.spawn_blocking("learn", move || recipe.learn());
        *learned = Some(work.await.context("learn")??);
    }
    if let Some((card, fitted)) = learned {
        // Whether this one is first or another was, the next step loads the one that counts.
        let first = recipe.store(client, card, fitted).await?;
        tracing::info!(first, rows = card.data.rows, "learned the model");
    }
    Ok(None)
}
