//! Requests that no honest caller sends, and what no honest instance says. There is nobody behind: what is understood
//! waits for an instance.
//! Invariant: each is understood or refused; no request makes an instance be left out, since that would be the
//! caller's doing.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kvstore_client::Registration;
use service::config::Config;
use service::http::Timeouts;
use service::metrics::Metrics;
use service::secrets::Secret;
use service::tasks::Tasks;
use service::{edge, problem};
use tokio::sync::Semaphore;

use super::{App, Counters, Times, headers, pass, router};
use crate::bent::feed;
use crate::bent_requests::{feed_requests, runtime};
use crate::refresh;
use crate::roster::Roster;

pub(super) fn registration() -> Registration {
    Registration {
        service: "petstore".to_owned(),
        name: "shop1".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        version: "0.1.0".to_owned(),
        started_ms: 1_700_000_000_000,
    }
}

pub(super) fn app(roster: Arc<Roster>) -> App {
    let metrics = Metrics::new();
    let config = Config::default();
    App {
        roster,
        held: Semaphore::new(config.gateway.body_bytes_max),
        answers: Arc::new(Semaphore::new(0)),
        times: Times::of(&config),
        config: config.gateway,
        pooled: service::http::client(Timeouts::default()),
        unpooled: service::http::client(Timeouts::default()),
        counters: Counters::new(&metrics),
        metrics,
        operator_token: Secret::new("the token of the operator"),
        stop: Tasks::new(),
    }
}

#[test]
fn requests() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let roster = Arc::new(Roster::new());
    roster.replace(vec![registration()]);
    let whole = [
        "GET /getServer?service=petstore&exclude=a%3A1,b:2\n\n",
        "GET /metrics\nauthorization: Bearer the token of the operator\n\n",
        "GET /products?q=a+b\nconnection: close, x-y\nx-y: 1\nx-forwarded-for: 1.1.1.1\nhost: shop.example\n\n",
        "POST /orders\nidempotency-key: k\ncontent-type: application/json\n\n{\"items\": []}",
        "OPTIONS *\n\n",
    ];
    let router = edge::wrap(router(app(roster.clone())), "gateway");
    feed_requests(&router, &whole.map(str::to_owned));
    assert_eq!(roster.failed(), Vec::new());
}

#[test]
fn entries_of_the_registry() {
    let key = registration().key();
    let whole = serde_json::to_vec(&registration()).expect("it is plain data");
    assert_eq!(refresh::read(&key, &whole), Some(registration()));
    feed(&[whole], |bytes| {
        if let Some(read) = refresh::read(&key, bytes) {
            assert_eq!(read.key(), key);
        }
    });
}

#[test]
fn answers_that_say_not_ready() {
    let whole = format!(
        r#"{{"status": 503, "code": "{}", "more": [1]}}"#,
        problem::NOT_READY.code
    );
    assert!(pass::says_not_ready(
        StatusCode::SERVICE_UNAVAILABLE,
        whole.as_bytes()
    ));
    feed(&[whole.into_bytes()], |bytes| {
        pass::says_not_ready(StatusCode::SERVICE_UNAVAILABLE, bytes);
    });
}

/// Each line is a header.
#[test]
fn headers_of_either_side() {
    let whole = b"connection: close, x-a,,te\nx-a: 1\nx-request-id: 7\nkeep-alive: 5\nhost: a:1".to_vec();
    feed(&[whole], |bytes| {
        let mut given = HeaderMap::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                given.append(name, value);
            }
        }
        let mut back = given.clone();
        headers::back(&mut back);
        headers::onward(&mut given, None, "http", "7");
        for headers in [back, given] {
            assert!(!headers.contains_key(header::CONNECTION));
        }
    });
}
