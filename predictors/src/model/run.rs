//! The process of one model.

use std::sync::Arc;

use anyhow::Context as _;
use service::config::{Behaviour, PredictorConfig};
use service::metrics::Metrics;
use service::tasks::Tasks;
use tokio::net::TcpListener;

use super::behave::Manner;
use super::http::{self, App};
use super::load::Recipe;
use super::obtain::Obtaining;
use crate::pass::pass;
use crate::process::{Life, Settings};

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
    let obtaining = Obtaining::new(recipe, life.client.clone(), Arc::clone(&app), life.inner.clone());
    life.inner.spawn("load", obtaining.run());
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
