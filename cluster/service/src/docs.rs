//! The contract of a service for programs (`/openapi.json`) and for people (`/docs`).
//! Invariant: the page works offline and runs nothing but its own script, whose hash the policy names.
//! It must not know any contract; the document is the service's own.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("docs.html");

static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (
        hash_between("<script>", "</script>"),
        hash_between("<style>", "</style>"),
    );
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("base64 is visible ASCII")
});

fn hash_between(start: &str, end: &str) -> String {
    let (_, rest) = PAGE.split_once(start).expect("the page has the element");
    let (content, _) = rest.split_once(end).expect("the element ends");
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content.as_bytes())))
}

/// The answer of `GET /openapi.json`.
pub fn document(openapi: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi).into_response()
}

/// The answer of `GET /docs`: lays out whatever `/openapi.json` holds.
pub fn page() -> Response {
    let mut response = Html(PAGE).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
