//! The life of a process: it serves, stays registered, and stops in order.
//! Invariant: it is registered only while it serves, and every task ends before `run` does.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::MethodRouter;
use kvstore_client::{KvClient, Registration};
use prometheus::{IntCounter, IntCounterVec};
use service::config::Config;
use service::secrets::{Secret, Secrets};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use service::{edge, time};
use tokio::net::TcpListener;

const DRAIN: Duration = Duration::from_secs(5);

/// What an instance needs to know to start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub config: Config,
    /// Such as `knn` or `consensus`.
    pub name: String,
    /// Where others reach it, as the registry tells them.
    pub address: String,
    pub secrets: Secrets,
}

impl Settings {
    pub(crate) fn token(&self, name: &str) -> anyhow::Result<Secret> {
        let token = self.secrets.token(name).cloned();
        token.with_context(|| format!("secrets.toml has no token for {name}"))
    }
}

/// The tasks of a process: those behind the port, and those that the port needs to the end.
pub(crate) struct Life {
    pub(crate) client: KvClient,
    pub(crate) inner: Tasks,
    /// Ends only when the last request was answered.
    pub(crate) last: Tasks,
}

impl Life {
    pub(crate) fn begin(settings: &Settings) -> anyhow::Result<Self> {
        let inner = Tasks::new();
        Ok(Self {
            client: super::client(settings, &inner)?,
            inner,
            last: Tasks::new(),
        })
    }

    /// Serves until `tasks` is told to stop.
    pub(crate) async fn serve(
        self,
        settings: &Settings,
        router: Router,
        listener: TcpListener,
        tasks: Tasks,
    ) -> anyhow::Result<()> {
        // Stopped after the registration is taken back, so that nobody is sent to a closed door.
        let edge = Tasks::new();
        let app = edge::wrap(router, &settings.name);
        let limits = Limits::from(&settings.config.limits);
        let serving = edge.spawn("port", serve::serve(listener, app, limits, edge.clone()));
        let registration = Registration {
            service: "predictors".to_owned(),
            name: settings.name.clone(),
            address: settings.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: time::now_ms(),
        };
        let ttl = Duration::from_millis(settings.config.predictors.registration_ms);
        let registered = self.inner.spawn("registration", {
            let client = self.client.clone();
            async move { client.keep_registered(registration, ttl).await }
        });
        tracing::info!(
            process.name = settings.name,
            address = settings.address,
            "serving"
        );
        tasks.stopping().await;
        self.inner.stop();
        if registered.await.is_err() {
            tracing::warn!("the registration ended by a panic");
        }
        edge.stop();
        edge.drain(DRAIN).await;
        self.inner.drain(DRAIN).await;
        self.last.stop();
        self.last.drain(DRAIN).await;
        serving
            .await
            .context("serve")?
            .context("end the port in an orderly way")
    }
}

pub(crate) type Routes<S> = Vec<(&'static str, MethodRouter<S>)>;

/// A router whose answers are counted by route and class of status.
pub(crate) fn counted<S: Clone + Send + Sync + 'static>(
    routes: Routes<S>,
    requests: &IntCounterVec,
) -> Router<S> {
    let mut router = Router::new();
    for (path, methods) in routes {
        let route = RouteCounters::of(requests, path);
        let methods = methods.layer(map_response(move |response: Response| {
            route.count(response.status());
            std::future::ready(response)
        }));
        router = router.route(path, methods);
    }
    router
}

/// The counters of one route, looked up once and not for each request.
#[derive(Clone)]
pub(crate) struct RouteCounters([IntCounter; 5]);

impl RouteCounters {
    fn of(requests: &IntCounterVec, path: &str) -> Self {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        Self(classes.map(|class| requests.with_label_values(&[path, class])))
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.0[class - 1].inc();
    }
}
