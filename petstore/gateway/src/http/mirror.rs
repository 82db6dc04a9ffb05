//! The catalogue from a mirror, while the store that the shops ask has no leader.
//! Invariant: only what anybody may read, and nothing that changes anything; the answer names the mirror that gave it.
//! All pages of one walk come from where its first came from: a cursor is a place in that list and in no other.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Response};
use kvstore_client::Registration;
use service::problem::{self, Problem};
use service::query::Query;
use service::{edge, http};
use tokio::time::Instant;

use super::{App, headers};

const MIRROR: &str = "mirror";
/// A mirror answers from its own disk. It has this time also where the shops have used up all that a request has.
const DEADLINE: Duration = Duration::from_secs(1);

/// Begins every cursor that a mirror gives out, and none of a shop.
const CURSOR_MARK: &str = "m.";

/// Who may answer a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Shops,
    /// A mirror, where no shop can.
    ShopsOrMirror,
    /// A walk that the mirror of this name began; an earlier version of mirrors did not tell theirs.
    Mirror(Option<String>),
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
        Ok(Some(cursor)) => match cursor.strip_prefix(CURSOR_MARK) {
            Some(walk) => Source::Mirror(walk.rsplit_once('.').map(|(name, _place)| name.to_owned())),
            None => Source::Shops,
        },
        Err(_) => Source::Shops,
    }
}

pub(super) fn is_there(app: &App) -> bool {
    app.roster.has(MIRROR)
}

pub(super) fn gone() -> Problem {
    let detail =
        "The mirror that began this list does not answer to go on with it. Begin again with the first page.";
    Problem::new(problem::NO_INSTANCE, detail).retry_after_ms(1000)
}

/// Goes on with a walk where it began: the copy of another mirror may be older, and its page would not fit.
pub(super) async fn walk(app: &App, name: Option<&str>, path: &str) -> Option<Response<Body>> {
    match name {
        Some(name) => {
            let mirror = app.roster.instance(MIRROR, name)?;
            counted(app, &mirror, path).await
        }
        None => catalogue(app, path).await,
    }
}

/// Asks each mirror once, until one answers.
pub(super) async fn catalogue(app: &App, path: &str) -> Option<Response<Body>> {
    let mut tried = Vec::new();
    while let Some(mirror) = app.roster.next_or_any(MIRROR, &tried) {
        tried.push(mirror.address.clone());
        let response = counted(app, &mirror, path).await;
        if response.is_some() {
            return response;
        }
    }
    None
}

async fn counted(app: &App, mirror: &Registration, path: &str) -> Option<Response<Body>> {
    let response = ask(app, mirror, path).await;
    let counter = match &response {
        Some(_) => &app.counters.passed,
        None => &app.counters.failed,
    };
    counter.with_label_values(&[mirror.name.as_str()]).inc();
    response
}

async fn ask(app: &App, mirror: &Registration, path: &str) -> Option<Response<Body>> {
    let until = Instant::now() + DEADLINE;
    let sent = app
        .pooled
        .get(format!("{}{path}", http::base(&mirror.address)))
        // Its refusals name the request, as the answer's header does.
        .header(headers::REQUEST_ID, edge::request_id())
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
        let of_mirror = |name: &str| Source::Mirror(Some(name.to_owned()));
        assert_eq!(of("limit=5&cursor=m%2Eone.eyJ9"), of_mirror("one"));
        assert_eq!(of("cursor=m.mirror-sync.2.eyJ9"), of_mirror("mirror-sync.2"));
        assert_eq!(of("cursor=m.eyJ9"), Source::Mirror(None));
        for broken in ["cursor=", "cursor=%", "cursor=m.a&cursor=m.b"] {
            assert_eq!(of(broken), Source::Shops, "{broken}");
        }
    }
}
