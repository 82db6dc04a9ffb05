//! What all routes share: the model once it is there, the manner, the counters.
//! Invariant: what takes long is done apart, since one thread answers all: a round of the consensus has a deadline.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use prometheus::IntCounterVec;
use service::config::PredictorsConfig;
use service::metrics::Metrics;
use service::problem::{self, Problem, Result};
use service::secrets::Secret;
use service::tasks::Tasks;
use service::{bearer, body};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::model::behave::Manner;
use crate::model::card::Card;
use crate::models::Predictor;
use crate::process::Settings;
use crate::wire::Shape;

/// Of those that are done apart, each of which takes a core.
const APART_MAX: usize = 2;

pub(crate) struct App {
    ready: OnceLock<Ready>,
    /// What is in the way of the model, if it is more than time.
    trouble: Mutex<Option<String>>,
    pub(crate) name: String,
    pub(crate) manner: Manner,
    /// What a caller must say, where the model is private.
    private: Option<Secret>,
    operator: Secret,
    work: Tasks,
    pub(super) places: Arc<Semaphore>,
    pub(crate) config: PredictorsConfig,
    pub(crate) metrics: Metrics,
    pub(crate) requests: IntCounterVec,
}

/// The model, whole.
pub(crate) struct Ready {
    pub(crate) card: Card,
    pub(crate) shape: Shape,
    pub(crate) predictor: Predictor,
}

impl Ready {
    pub(crate) fn new(card: Card, predictor: Predictor) -> Self {
        Self {
            shape: Shape {
                features: card.features.clone(),
                classes: card.classes.clone(),
            },
            card,
            predictor,
        }
    }
}

impl App {
    pub(crate) fn new(
        settings: &Settings,
        manner: Manner,
        private: Option<Secret>,
        metrics: Metrics,
        work: Tasks,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            ready: OnceLock::new(),
            trouble: Mutex::new(None),
            name: settings.name.clone(),
            manner,
            private,
            operator: settings.token("operator")?,
            work,
            places: Arc::new(Semaphore::new(APART_MAX)),
            config: settings.config.predictors.clone(),
            requests: metrics.counters(
                "predictor_requests_total",
                "Answers by route and class of status",
                &["route", "status"],
            ),
            metrics,
        })
    }

    pub(crate) fn load(&self, ready: Ready) {
        // It is loaded once; a second time would find the same.
        let _loaded = self.ready.set(ready);
    }

    /// Until the model is there, callers are told this.
    pub(crate) fn hold(&self, trouble: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    pub(crate) fn ready(&self) -> Result<&Ready> {
        self.ready.get().ok_or_else(|| {
            let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            let detail = match trouble.as_deref() {
                None => "The model is being learned or loaded; it takes a moment.".to_owned(),
                Some(trouble) => format!("The model cannot be served: {trouble}."),
            };
            Problem::new(problem::NOT_READY, detail.clone()).extra("error", detail)
        })
    }

    /// Does what takes long on a thread of its own, unless as many do so already as may.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Ok(held) = Arc::clone(&self.places).try_acquire_owned() else {
            let detail =
                "Other requests with many rows are being answered. Ask again, or for fewer rows at once.";
            return Err(Problem::new(problem::OVERLOADED, detail).extra("error", detail));
        };
        let app = Arc::clone(self);
        let done = self.work.spawn_blocking("many rows", move || {
            // To the end of the work, also when nobody waits for it any more.
            let _held = held;
            work(&app)
        });
        done.await
            .map_err(|error| Problem::internal("answer many rows", error))?
    }

    /// Anybody may ask, unless models are private.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Result<()> {
        let Some(private) = &self.private else {
            return Ok(());
        };
        let given = given(headers)?;
        if private.matches(given) {
            return Ok(());
        }
        Err(bearer::unauthorized("This model answers the consensus alone."))
    }

    pub(crate) fn operator(&self, headers: &HeaderMap) -> Result<()> {
        if self.operator.matches(given(headers)?) {
            return Ok(());
        }
        Err(bearer::unauthorized("This token is not the operator's."))
    }

    pub(crate) async fn body(&self, body: Body) -> Result<Bytes> {
        let deadline = Instant::now() + Duration::from_millis(self.config.request_ms_max);
        body::read(body, self.config.body_bytes_max, deadline).await
    }
}

fn given(headers: &HeaderMap) -> Result<&str> {
    Ok(std::str::from_utf8(bearer::token(headers)?).unwrap_or_default())
}
