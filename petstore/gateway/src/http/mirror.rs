//! The catalogue from a mirror, while the store that the shops ask has no leader.
//! Invariant: only what anybody may read, and nothing that changes anything; the answer names the mirror that gave it.
//! All pages of one walk come from where its first came from: a cursor is a place in that list and in no other.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Response};
use kvstore_client::Registration;
use service::http;
use service::problem::{self, Problem};
use service::query::Query;
use tokio::time::Instant;

use super::{App, headers};

const MIRROR: &str = "mirror";
/// A mirror answers from its own disk.
const DEADLINE: Duration = Duration::from_secs(1);

/// Begins every cursor that a mirror gives out, and none of a shop.
const CURSOR_MARK: &str = "m.";

/// Who may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Shops,
    /// A mirror, where no shop can.
    ShopsOrMirror,
    /// A walk that a mirror began.
    Mirror,
}

/// Of `/products` and of one product there are copies.
pub(super) fn source(method: &Method, target: &str) -> Source {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let one = path.strip_prefix("/products/");
    if *method != Method::GET {
        return Source::Shops;
    }
    if path != "/products" {
        let copied = one.is_some_and(|id| !id.is_empty() && !id.contains('/'));
        return if copied {
            Source::ShopsOrMirror
        } else {
            Source::Shops
        };
    }
    match Query::of_form(query).text("cursor") {
        Ok(None) => Source::ShopsOrMirror,
        Ok(Some(cursor)) if cursor.starts_with(CURSOR_MARK) => Source::Mirror,
        Ok(Some(_)) | Err(_) => Source::Shops,
    }
}

pub(super) fn gone() -> Problem {
    let detail = "No mirror answers to go on with the list that it began. Begin again with the first page.";
    Problem::new(problem::NO_INSTANCE, detail).retry_after_ms(1000)
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
    fn only_reads_of_products_have_copies() {
        let of = |target: &str| source(&Method::GET, target);
        assert_eq!(of("/products?category=dogs"), Source::ShopsOrMirror);
        assert_eq!(of("/products/7"), Source::ShopsOrMirror);
        assert_eq!(of("/products/7?cursor=MTIzLjUw"), Source::ShopsOrMirror);
        for target in [
            "/products/",
            "/products/7/pictures",
            "/orders/ann",
            "/",
            "/productsx",
        ] {
            assert_eq!(of(target), Source::Shops, "{target}");
        }
        assert_eq!(source(&Method::POST, "/products"), Source::Shops);
    }

    #[test]
    fn a_walk_goes_on_where_it_began() {
        let of = |query: &str| source(&Method::GET, &format!("/products?{query}"));
        assert_eq!(of("cursor=MTIzLjUw&limit=5"), Source::Shops);
        assert_eq!(of("limit=5&cursor=m%2EeyJ9"), Source::Mirror);
        assert_eq!(of("cursor=m.eyJ9"), Source::Mirror);
        for broken in ["cursor=", "cursor=%", "cursor=m.a&cursor=m.b"] {
            assert_eq!(of(broken), Source::Shops, "{broken}");
        }
    }
}
