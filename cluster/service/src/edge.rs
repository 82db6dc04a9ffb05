//! What every HTTP answer of every process has in common.
//! Invariant: each answer names its request and the process that gave it; each refusal, also one made by
//! the router itself or by a panic, is a problem of the same form.
//! It must not know the routes it wraps, nor log a query, a body or a credential, nor a card number out of a path.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt as _;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use tower::Service;
use tower::layer::layer_fn;

use crate::card_like::{could_be_card, has_card_number};
use crate::problem::{self, Explained, Problem};
use crate::request_id;

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Wraps the routes of a process called `name`, and adds `/livez` and `/problems/{code}`.
pub fn wrap(router: Router, name: &str) -> Router {
    let served_by = HeaderValue::try_from(name).expect("the name of a process is visible ASCII");
    router
        .route("/livez", get(async || "alive\n"))
        .route("/problems/{code}", get(problem_page))
        .layer(layer_fn(move |inner| Edge {
            inner,
            served_by: served_by.clone(),
        }))
}

/// The id of the request this task answers; a new one outside of any request.
pub fn request_id() -> String {
    request_id::current()
}

/// A request that is refused whatever it asks for. The edge answers it, so that this answer has what all have.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) Problem);

async fn problem_page(Path(code): Path<String>, headers: HeaderMap) -> problem::Result<Response> {
    problem::page(&code, &headers)
}

#[derive(Clone)]
struct Edge<S> {
    inner: S,
    served_by: HeaderValue,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let served_by = self.served_by.clone();
        let id = request_id::take_over_or_make(request.headers());
        let access = Access::begin(&request);
        let refused = request.extensions_mut().remove::<Refused>();
        // Called at once, since a copy to be called later is one of every layer within. A route runs nothing of its
        // handler before it is polled, so no panic is missed.
        let answering = self.inner.call(request);
        let handled = AssertUnwindSafe(async move {
            match refused {
                Some(Refused(problem)) => Ok(problem.into_response()),
                None => answering.await,
            }
        });
        let answer = async move {
            let response = match handled.catch_unwind().await {
                Ok(Ok(response)) => explain(response),
                Err(_panic) => after_panic(),
            };
            access.end(response.status());
            response
        };
        Box::pin(async move {
            let mut response = request_id::CURRENT.scope(id.clone(), answer).await;
            let headers = response.headers_mut();
            headers.insert(request_id::HEADER, id);
            // An answer passed on from another process keeps the name of the one that made it.
            headers.entry(SERVED_BY).or_insert(served_by);
            Ok(response)
        })
    }
}

/// The panic hook has logged the place already.
fn after_panic() -> Response {
    tracing::error!(request.id = request_id(), "a handler panicked");
    Problem::new(
        problem::INTERNAL,
        "Something went wrong here; the log has it under this request id.",
    )
    .into_response()
}

/// Gives refusals that the router or an extractor made on its own the form all others have.
fn explain(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    if response.extensions().get::<Explained>().is_some() || !is_bare(response.headers()) {
        return response;
    }
    let (kind, detail) = match status {
        StatusCode::BAD_REQUEST => (
            problem::MALFORMED_PARAMETER,
            "A part of the path or of the query cannot be read.",
        ),
        StatusCode::NOT_FOUND => (problem::NOT_FOUND, "There is no such route here."),
        StatusCode::METHOD_NOT_ALLOWED => (
            problem::METHOD_NOT_ALLOWED,
            "This path does not take this method; the header Allow lists those it takes.",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (problem::TOO_LARGE, "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            problem::UNSUPPORTED_MEDIA_TYPE,
            "This route does not take a body of this type.",
        ),
        StatusCode::UNPROCESSABLE_ENTITY => (
            problem::INVALID_REQUEST,
            "The request can be read, but is not what this route takes.",
        ),
        _ => return response,
    };
    let mut explained = Problem::new(kind, detail).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        explained.headers_mut().insert(header::ALLOW, allow.clone());
    }
    explained
}

/// No content type, or plain text: what axum itself answers with.
fn is_bare(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

/// The line of the access log, prepared only when somebody reads that level.
struct Access(Option<(Method, String, Instant)>);

impl Access {
    fn begin(request: &Request) -> Self {
        Self(tracing::enabled!(tracing::Level::DEBUG).then(|| {
            let path = loggable(request.uri().path()).to_owned();
            (request.method().clone(), path, Instant::now())
        }))
    }

    fn end(self, status: StatusCode) {
        if let Some((method, path, began)) = self.0 {
            let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(
                request.id = request_id(),
                http.method = %method,
                http.path = path,
                http.status = status.as_u16(),
                elapsed_us,
                "answered"
            );
        }
    }
}

/// Names in a path are of the caller's choice, and one may be a card number by mistake. It is refused only later.
fn loggable(path: &str) -> &str {
    let names = percent_decode_str(path).decode_utf8_lossy();
    if has_card_number(&names, could_be_card) {
        "[a path with a card number]"
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_card_number_gets_into_the_log() {
        for path in [
            "/v1/payments/4242424242424242",
            "/v1/payments/4242%204242%204242%204242/cancel",
            "/v1/payments/p/refunds/r-%34%32%34%32424242424242",
        ] {
            assert_eq!(loggable(path), "[a path with a card number]", "{path}");
        }
        let usual = "/v1/payments/shop-019ab4242424242424242fe0123456789a/cancel";
        assert_eq!(loggable(usual), usual);
    }
}
