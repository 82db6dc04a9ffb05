//! The HTTP edge of a node: each route of the store's contract, one file a topic.
//!
//! A request is parsed here into a command or a read point that cannot be wrong, and answers are put
//! into words here. Invariant: every route but the open ones asks `auth` first; whether a write is
//! allowed is decided where it is applied. It must not know Raft, nor write to the database.

mod answers;
mod auth;
#[cfg(test)]
mod bent;
mod cluster;
mod cursor;
mod deletes;
mod docs;
mod events;
mod fields;
#[cfg(test)]
mod half_made;
mod keys;
mod large;
mod leases;
mod maintenance;
mod mirrors;
mod once;
mod params;
mod pins;
mod places;
mod range;
mod reply;
mod snapshot;
mod tokens;
mod txn;
mod txn_parse;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::routing::{MethodRouter, delete, get, post, put};
use bytes::Bytes;
use serde_json::Value;
use service::config::LimitsConfig;
use service::metrics::counted;
use service::tasks::Tasks;
use service::{body, problem};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::machine::turns::Turns;
use crate::store::Store;
use pins::Pins;
use places::Places;

/// Unknown tokens that may be looked up at the leader at the same time.
const LOOKUPS_MAX: usize = 16;
/// What all routes share.
pub struct Api {
    store: Store,
    limits: LimitsConfig,
    lookups: Semaphore,
    pins: Pins,
    /// Keys that all deletes by prefixes together may still take.
    deletes: Arc<Semaphore>,
    /// Who gathers the keys of leases, of which each has all in memory.
    gatherings: Turns,
    watchers: Arc<Places>,
    /// Streams end when these are told to stop.
    streams: Tasks,
}

type Shared = Arc<Api>;

impl Api {
    pub fn new(store: Store, limits: LimitsConfig) -> Self {
        let watchers = Places::new(limits.watchers_max, store.metrics().watchers.clone());
        let deletes = Arc::new(Semaphore::new(limits.delete_keys_max));
        let streams = store.edge().clone();
        let lookups = Semaphore::new(LOOKUPS_MAX);
        let pins = Pins::start(&store, &limits);
        Self {
            store,
            limits,
            lookups,
            pins,
            deletes,
            gatherings: Turns::new(),
            watchers,
            streams,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.limits.request_ms_max)
    }

    /// What a read answers, unless that takes longer than a request may; with it ends the walk behind it.
    async fn in_time<T>(&self, reading: impl Future<Output = problem::Result<T>>) -> problem::Result<T> {
        let Ok(answer) = timeout_at(self.deadline(), reading).await else {
            let detail = format!(
                "This took longer than the {} ms that a request may. Ask for less at once.",
                self.limits.request_ms_max
            );
            return Err(problem::Problem::new(problem::TIMEOUT, detail));
        };
        answer
    }

    /// A body of at most `bytes_max` bytes.
    async fn body(&self, headers: &HeaderMap, body: Body, bytes_max: usize) -> problem::Result<Bytes> {
        let deadline = self.deadline();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if let Some(announced) = announced.filter(|announced| *announced > bytes_max as u64) {
            // Who waits for "100 Continue" has sent nothing yet, and looking for it would ask for it.
            if announced <= body::DISCARD_BYTES_MAX && !headers.contains_key(header::EXPECT) {
                body::discard(body, deadline).await;
            }
            let detail = format!("The body is larger than the {bytes_max} bytes allowed here.");
            return Err(problem::Problem::new(problem::TOO_LARGE, detail));
        }
        body::read(body, bytes_max, deadline).await
    }

    async fn json_body(&self, headers: &HeaderMap, body: Body) -> problem::Result<Bytes> {
        self.body(headers, body, self.limits.request_bytes_max).await
    }

    fn json(&self, headers: &HeaderMap, body: &Bytes) -> problem::Result<Value> {
        body::json_to_depth(headers, body, self.limits.json_depth_max)
    }
}

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    let key = || get(keys::read).put(keys::put).delete(keys::delete);
    vec![
        ("/v1/kv/{*key}", key()),
        // The empty key: refused with a reason, not as an unknown route.
        ("/v1/kv/", key()),
        (
            "/v1/kv",
            get(range::range).post(keys::create).delete(keys::delete_prefix),
        ),
        ("/v1/txn", post(txn::run)),
        ("/v1/watch", get(watch::watch)),
        ("/v1/leases", get(leases::list).post(leases::grant)),
        ("/v1/leases/{id}", get(leases::show).delete(leases::revoke)),
        ("/v1/leases/{id}/keepalive", post(leases::keepalive)),
        ("/v1/revision", get(maintenance::revision)),
        ("/v1/hash", get(maintenance::hash)),
        ("/v1/snapshot", get(snapshot::snapshot)),
        ("/v1/status", get(maintenance::status)),
        ("/v1/compact", post(maintenance::compact)),
        ("/v1/cluster", get(cluster::show)),
        ("/v1/cluster/leader", post(cluster::transfer)),
        ("/v1/cluster/members", post(cluster::add)),
        ("/v1/cluster/members/{id}", delete(cluster::remove)),
        ("/v1/cluster/members/{id}/promote", post(cluster::promote)),
        ("/v1/answers", get(answers::list)),
        ("/v1/mirrors", get(mirrors::list)),
        (
            "/v1/mirrors/{name}",
            put(mirrors::announce).delete(mirrors::remove),
        ),
        ("/v1/mirrors/{name}/ack", post(mirrors::acknowledge)),
        ("/v1/tokens", get(tokens::list)),
        ("/v1/tokens/{name}", put(tokens::make).delete(tokens::remove)),
        ("/metrics", get(maintenance::metrics)),
        ("/readyz", get(maintenance::ready)),
        ("/openapi.json", get(docs::openapi)),
        ("/docs", get(docs::page)),
    ]
}

/// The routes alone; what all services have in common is put around them by `edge::wrap`.
pub fn router(api: Api) -> Router {
    let requests = api.store.metrics().requests.clone();
    let routes = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, counted(&requests, path, methods))
        });
    routes.with_state(Arc::new(api))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// What the document calls these, or why they are not in it.
    fn documented(path: &str) -> Option<String> {
        match path {
            "/v1/kv/" => None,
            _ => Some(path.replace("{*", "{")),
        }
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::docs::OPENAPI).unwrap();
        let described: BTreeSet<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let mut served: BTreeSet<String> = super::routes()
            .iter()
            .filter_map(|(path, _)| documented(path))
            .collect();
        served.extend(["/livez".to_owned(), "/problems/{code}".to_owned()]);
        assert_eq!(described, served);
    }
}
