//! The routes of the gateway itself; every other path is passed on.
//! Invariant: what it answers on its own says whether it rests on an old list.

#[cfg(test)]
mod bent;
mod bodies;
mod headers;
mod mirror;
mod pass;
mod registry;
mod times;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use prometheus::IntCounterVec;
use service::config::GatewayConfig;
use service::docs;
use service::metrics::Metrics;
use service::secrets::Secret;
use service::tasks::Tasks;
use tokio::sync::Semaphore;

pub(crate) use times::Times;

use crate::roster::Roster;

pub(crate) struct App {
    pub(crate) roster: Arc<Roster>,
    pub(crate) config: GatewayConfig,
    pub(crate) times: Times,
    pub(crate) pooled: reqwest::Client,
    /// A new connection each time, for what must not meet one that the other side is just closing.
    pub(crate) unpooled: reqwest::Client,
    /// One permit for each byte of bodies that may be held.
    pub(crate) held: Semaphore,
    /// The same for answers.
    pub(crate) answers: Arc<Semaphore>,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
    pub(crate) operator_token: Secret,
    pub(crate) stop: Tasks,
}

/// What is counted. Names of instances come from the registry, which only services may write.
pub(crate) struct Counters {
    pub(crate) passed: IntCounterVec,
    pub(crate) failed: IntCounterVec,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            passed: metrics.counters(
                "menagerie_gateway_passed_total",
                "Requests that an instance answered.",
                &["instance"],
            ),
            failed: metrics.counters(
                "menagerie_gateway_failed_total",
                "Requests that an instance did not answer; what is safe to repeat went to another one.",
                &["instance"],
            ),
        }
    }
}

/// Of the gateway's own routes; each shop has the document of the others.
const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/getServer", get(registry::get_server))
        .route("/services", get(registry::services))
        .route("/readyz", get(registry::ready))
        .route("/openapi.json", get(async || docs::document(OPENAPI)))
        .route("/docs", get(async || docs::page()))
        .route("/metrics", get(registry::metrics))
        .fallback(pass::pass)
        .with_state(Arc::new(app))
}
