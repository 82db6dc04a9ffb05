//! The HTTP edge: each route of the contract, one file a topic.
//! Requests are parsed here into types that cannot be wrong. Invariant: every route but the open ones asks `caller`
//! first; no card number leaves the request it came in, neither into a log nor into an answer.
//! It must not know keys or transactions.

#[cfg(test)]
mod bent;
mod caller;
mod cards;
mod ledger;
mod page;
mod payments;
mod reading;
mod simple;
mod state;
mod throttle;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{Redirect, Response};
use axum::routing::{MethodRouter, get, post, put};
use service::{docs, problem};

pub(crate) use state::{App, Counters};
pub(crate) use throttle::Throttle;

const OPENAPI: &str = include_str!("openapi.json");

type Shared = Arc<App>;

/// Every route but those that `edge::wrap` adds for all services.
fn routes() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/v1/cards", put(cards::open)),
        ("/v1/cards/balance", post(cards::balance)),
        ("/v1/tokens", post(cards::tokenize)),
        ("/v1/payments", get(payments::list)),
        ("/v1/payments/{id}", put(payments::pay).get(payments::show)),
        ("/v1/payments/{id}/capture", post(payments::capture)),
        ("/v1/payments/{id}/cancel", post(payments::cancel)),
        ("/v1/payments/{id}/refunds/{rid}", put(payments::refund)),
        ("/payments", post(simple::pay)),
        ("/v1/ledger/check", get(ledger::check)),
        ("/ledger", get(page::accounts)),
        ("/ledger/payments", get(page::payments)),
        ("/ledger.css", get(page::style)),
        ("/metrics", get(ledger::metrics)),
        ("/readyz", get(ledger::ready)),
        ("/openapi.json", get(async || docs::document(OPENAPI))),
        ("/docs", get(async || docs::page())),
    ]
}

/// Those that a page of another origin may call on a demo system.
const OPEN_TO_BROWSERS: [&str; 3] = ["/v1/cards/balance", "/v1/tokens", "/payments"];

pub(crate) fn router(app: App) -> Router {
    let (counters, demo) = (app.counters.clone(), app.config.demo);
    let mut router = Router::new().route("/", get(async || Redirect::temporary("/ledger")));
    for (path, methods) in routes() {
        let mut methods = methods;
        if demo && OPEN_TO_BROWSERS.contains(&path) {
            methods = methods.options(preflight).layer(map_response(allow_origins));
        }
        router = router.route(path, counters.requests.counted(path, methods));
    }
    router.with_state(Arc::new(app))
}

/// What a browser asks before it calls another origin.
async fn preflight() -> [(HeaderName, HeaderValue); 3] {
    let value = HeaderValue::from_static;
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, value("POST")),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            value("content-type, idempotency-key, x-request-id"),
        ),
        (header::ACCESS_CONTROL_MAX_AGE, value("600")),
    ]
}

/// No credential of the browser is ever looked at on these routes, so any origin may call them.
async fn allow_origins(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("idempotent-replayed, location, retry-after, x-request-id, x-served-by"),
    );
    response
}

type Result<T> = problem::Result<T>;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(super::OPENAPI).unwrap();
        let described: BTreeSet<&str> = document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut served: BTreeSet<&str> = super::routes().iter().map(|(path, _)| *path).collect();
        served.extend(["/livez", "/problems/{code}"]);
        assert_eq!(described, served);
    }
}
