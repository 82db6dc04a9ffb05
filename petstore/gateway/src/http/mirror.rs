//! The catalogue from a mirror, while the store that the shops ask has no leader.
//! Invariant: only what anybody may read, and nothing that changes anything; the answer names the mirror that gave it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Response};
use kvstore_client::Registration;
use service::http;
use tokio::time::Instant;

use super::{App, headers};

const MIRROR: &str = "mirror";
/// A mirror answers from its own disk.
const DEADLINE: Duration = Duration::from_secs(1);

/// `/products` and one product.
pub(super) fn is_catalogue(method: &Method, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let one = path.strip_prefix("/products/");
    *method == Method::GET
        && (path == "/products" || one.is_some_and(|id| !id.is_empty() && !id.contains('/')))
}

/// Asks each mirror once, until one answers.
pub(super) async fn catalogue(app: &App, path: &str, deadline: Instant) -> Option<Response<Body>> {
    let mut tried = Vec::new();
    while let Some(mirror) = app.roster.next_or_any(MIRROR, &tried) {
        tried.push(mirror.address.clone());
        if let Some(response) = ask(app, &mirror, path, deadline).await {
            let passed = &app.counters.passed;
            passed.with_label_values(&[mirror.name.as_str()]).inc();
            return Some(response);
        }
        let failed = &app.counters.failed;
        failed.with_label_values(&[mirror.name.as_str()]).inc();
    }
    None
}

async fn ask(app: &App, mirror: &Registration, path: &str, deadline: Instant) -> Option<Response<Body>> {
    let until = deadline.min(Instant::now() + DEADLINE);
    let sent = app
        .pooled
        .get(format!("{}{path}", http::base(&mirror.address)))
        .send();
    let answer = tokio::time::timeout_at(until, sent).await.ok()?.ok()?;
    if answer.status().is_server_error() {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    headers::back(response.headers_mut());
    let body = tokio::time::timeout_at(until, answer.bytes()).await.ok()?.ok()?;
    *response.body_mut() = body.into();
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reads_of_products_are_the_catalogue() {
        assert!(is_catalogue(&Method::GET, "/products?category=dogs"));
        assert!(is_catalogue(&Method::GET, "/products/7"));
        for path in [
            "/products/",
            "/products/7/pictures",
            "/orders/ann",
            "/",
            "/productsx",
        ] {
            assert!(!is_catalogue(&Method::GET, path), "{path}");
        }
        assert!(!is_catalogue(&Method::POST, "/products"));
    }
}
