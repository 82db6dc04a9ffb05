//! What all routes share: the ledger, the asker, the settler, the settings.
//! Invariant: nothing here remembers a request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use prometheus::{Histogram, IntCounterVec};
use service::body;
use service::config::PredictorsConfig;
use service::metrics::Metrics;
use service::problem::Result;
use service::secrets::{Secret, Secrets};
use service::tasks::Tasks;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::consensus::ask::Asker;
use crate::consensus::network::Bank;
use crate::consensus::settler::Settler;
use crate::process::Settings;
use crate::wire::Shape;

pub(crate) struct App {
    pub(super) bank: Bank,
    pub(super) asker: Asker,
    pub(super) settler: Settler,
    pub(super) shape: Shape,
    pub(super) secrets: Secrets,
    pub(super) operator: Secret,
    pub(super) oracle: Secret,
    /// Who plays plays alone.
    pub(super) playing: Arc<Semaphore>,
    /// Where work runs that must not end with the connection.
    pub(super) work: Tasks,
    config: PredictorsConfig,
    pub(super) metrics: Metrics,
    pub(super) requests: IntCounterVec,
    pub(super) settled: IntCounterVec,
    pub(super) heard_seconds: Histogram,
}

impl App {
    pub(crate) fn new(
        settings: &Settings,
        (bank, asker, settler): (Bank, Asker, Settler),
        shape: Shape,
        metrics: Metrics,
        work: Tasks,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            bank,
            asker,
            settler,
            shape,
            secrets: settings.secrets.clone(),
            operator: settings.token("operator")?,
            oracle: settings.token("oracle")?,
            playing: Arc::new(Semaphore::new(1)),
            work,
            config: settings.config.predictors.clone(),
            requests: metrics.counters(
                "consensus_requests_total",
                "Answers by route and class of status",
                &["route", "status"],
            ),
            settled: metrics.counters(
                "consensus_outcomes_total",
                "Outcomes reported here, by what became of them",
                &["result"],
            ),
            heard_seconds: metrics.latency("consensus_heard_seconds", "How long it took to hear all models"),
            metrics,
        })
    }

    pub(super) async fn body(&self, body: Body) -> Result<Bytes> {
        let deadline = Instant::now() + Duration::from_millis(self.config.request_ms_max);
        body::read(body, self.config.body_bytes_max, deadline).await
    }
}
