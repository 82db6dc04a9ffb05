//! What all routes share.
//! Invariant: the database is read on threads that may block, never on those that serve.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use kvstore_client::KvClient;
use prometheus::IntGauge;
use service::config::{Config, MirrorConfig};
use service::metrics::{Metrics, Requests};
use service::problem::{self, Problem};
use service::secrets::Secret;
use service::{bearer, http};
use tokio::sync::Semaphore;

use super::reads::Reads;
use crate::copy::Reader;
use crate::progress::Progress;
use crate::run::Settings;
use crate::writer::Orders;

pub(crate) struct App {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) mirror: MirrorConfig,
    pub(super) client: KvClient,
    reads: Reads,
    pub(super) progress: Arc<Progress>,
    pub(super) orders: Orders,
    pub(super) http: reqwest::Client,
    pub(super) operator: Secret,
    pub(super) requests: Requests,
    /// Each comparison reads everything.
    pub(super) verifying: Semaphore,
    metrics: Metrics,
    gauges: Gauges,
}

struct Gauges {
    revision: IntGauge,
    lag_revisions: IntGauge,
    lag_ms: IntGauge,
    transactions: IntGauge,
    changes: IntGauge,
    shapeless: IntGauge,
    rebuilds: IntGauge,
    trouble: IntGauge,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.gauge(name, help);
        Self {
            revision: gauge("mirror_revision", "Revision of the copy"),
            lag_revisions: gauge(
                "mirror_lag_revisions",
                "Revisions that came and are not on the disk yet",
            ),
            lag_ms: gauge("mirror_lag_ms", "How long the oldest of them has waited"),
            transactions: gauge("mirror_transactions", "Transactions of the copy since the start"),
            changes: gauge("mirror_changes", "Changes of keys applied since the start"),
            shapeless: gauge(
                "mirror_shapeless",
                "Values that are not what their keys promise, and so in no table",
            ),
            rebuilds: gauge("mirror_rebuilds", "How often the copy was made anew"),
            trouble: gauge("mirror_cannot_write", "1 while the copy cannot be written"),
        }
    }
}

impl App {
    pub(crate) fn new(
        settings: &Settings,
        mirror: MirrorConfig,
        client: KvClient,
        reader: Arc<Reader>,
        progress: Arc<Progress>,
        orders: Orders,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let operator = settings.secrets.token("operator").cloned();
        let most = Duration::from_millis(settings.config.gateway.request_ms_max);
        Ok(Self {
            name: settings.name.clone(),
            config: settings.config.clone(),
            mirror,
            client,
            reads: Reads::of(reader),
            progress,
            orders,
            http: http::client(most),
            operator: operator.context("secrets.toml has no token for operator")?,
            requests: metrics.requests("mirror_requests_total"),
            verifying: Semaphore::new(1),
            gauges: Gauges::new(&metrics),
            metrics,
        })
    }

    /// An old copy is what one wants when the store is gone. Where nothing was ever copied, that there is nothing says
    /// nothing of the shop, and must not be told as if it did.
    pub(super) fn is_there(&self) -> problem::Result<()> {
        let applied = self.progress.now();
        // An empty store was copied too.
        if applied.revision > 0 || applied.rebuilds > 0 {
            return Ok(());
        }
        Err(Problem::new(
            problem::NOT_READY,
            "Nothing was copied yet; the store may have no leader.",
        ))
    }

    /// What the copy says, once there is one.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> problem::Result<T> {
        self.is_there()?;
        self.reads.read(read).await
    }

    /// What the copy has at a key, or the few things below a prefix.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> anyhow::Result<T> + Send + 'static,
    ) -> problem::Result<T> {
        self.is_there()?;
        self.reads.look_up(read).await
    }

    pub(super) fn is_operator(&self, headers: &HeaderMap) -> bool {
        let token = bearer::token(headers)
            .ok()
            .and_then(|token| std::str::from_utf8(token).ok());
        token.is_some_and(|token| self.operator.matches(token))
    }
}

pub(super) async fn metrics(
    State(app): State<super::Shared>,
    headers: HeaderMap,
) -> problem::Result<Response> {
    if !app.is_operator(&headers) {
        return Err(bearer::unauthorized("This token is not the operator's."));
    }
    let (applied, gauges) = (app.progress.now(), &app.gauges);
    let set = |gauge: &IntGauge, number: u64| gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
    set(&gauges.revision, applied.revision);
    set(
        &gauges.lag_revisions,
        app.progress.seen().saturating_sub(applied.revision),
    );
    set(
        &gauges.lag_ms,
        u64::try_from(app.progress.lag().as_millis()).unwrap_or(u64::MAX),
    );
    set(&gauges.transactions, applied.transactions);
    set(&gauges.changes, applied.keys);
    set(&gauges.shapeless, applied.shapeless);
    set(&gauges.rebuilds, applied.rebuilds);
    set(&gauges.trouble, u64::from(applied.trouble.is_some()));
    Ok(app.metrics.response())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::{Value, json};
    use service::body;
    use service::edge;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::super::bent::mirror_at;
    use super::super::router;
    use super::*;

    /// The status of an answer and what it says, to the operator.
    async fn told(revision: u64, path: &str) -> (u16, Value) {
        let folder = tempfile::tempdir().unwrap();
        let (app, operator) = mirror_at(folder.path(), Config::default(), revision);
        let request = Request::get(path).header("authorization", format!("Bearer {operator}"));
        let request = request.body(Body::empty()).unwrap();
        let answer = edge::wrap(router(app), "mirror-one").oneshot(request).await;
        let (parts, told) = answer.unwrap().into_parts();
        let until = Instant::now() + Duration::from_secs(20);
        let told = body::read(told, 1 << 16, until).await.unwrap();
        (parts.status.as_u16(), serde_json::from_slice(&told).unwrap())
    }

    #[tokio::test]
    async fn of_what_was_never_copied_nothing_is_told() {
        for path in ["/products", "/products/7", "/orders/u1", "/readyz"] {
            let (status, body) = told(0, path).await;
            assert_eq!((status, &body["code"]), (503, &json!("not-ready")), "{path}");
        }
        // The copy of a store in which there is no shop.
        for (path, wanted, code) in [
            ("/products", 200, Value::Null),
            ("/products/7", 404, json!("not-found")),
            ("/orders/u1", 200, Value::Null),
        ] {
            let (status, body) = told(7, path).await;
            assert_eq!((status, &body["code"]), (wanted, &code), "{path}");
        }
    }
}
