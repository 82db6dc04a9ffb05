//! Requests as no honest client sends them, put to the real routes of a service, without anything behind them.
//! Invariant: each is understood, or refused with an answer that says so; none makes a handler panic, and the service
//! still understands the whole ones afterwards. A request that waits for somebody else was understood: it is dropped
//! there, as that of a client that went away.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

use crate::bent::feed;

const ANSWER_BYTES_MAX: usize = 1 << 20;

/// To be entered before the service is made. It is not driven, so that nothing happens but what the test asks for. What
/// blocks has one thread, since each takes a part of the memory, which is bounded.
pub(crate) fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.expect("a thread of one's own needs nothing")
}

/// `whole` are requests: `PUT /path?query`, the headers line by line, an empty line, the body.
pub(crate) fn feed_requests(router: &Router, whole: &[String]) {
    let whole: Vec<Vec<u8>> = whole.iter().map(|text| text.clone().into_bytes()).collect();
    check_whole(router, &whole);
    feed(&whole, |bytes| {
        // What is no request at all never gets as far as a route. Its bytes are the body of one that is.
        let as_body = || read(&[&head_of(&whole[bytes.len() % whole.len()])[..], bytes].concat());
        if let Some(request) = read(bytes).or_else(as_body) {
            understands(router, request);
        }
    });
    check_whole(router, &whole);
}

fn check_whole(router: &Router, whole: &[Vec<u8>]) {
    for bytes in whole {
        let text = String::from_utf8_lossy(bytes);
        let request = read(bytes).unwrap_or_else(|| panic!("no request: {text}"));
        assert!(understands(router, request), "refused: {text}");
    }
}

/// With the empty line behind it.
fn head_of(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    bytes[..end.expect("a whole request has an empty line") + 2].to_vec()
}

fn read(bytes: &[u8]) -> Option<Request<Body>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (&bytes[..end], &bytes[end + 2..]);
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = parted(lines.next()?, b' ')?;
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let (name, value) = parted(line, b':')?;
        request = request.header(name, value.trim_ascii());
    }
    request.body(Body::from(body.to_vec())).ok()
}

fn parted(bytes: &[u8], by: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == by)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn understands(router: &Router, request: Request<Body>) -> bool {
    let method = request.method().clone();
    let Some(answer) = router.clone().oneshot(request).now_or_never() else {
        return true;
    };
    let response = answer.expect("a router cannot fail");
    let status = response.status();
    if status.is_informational() || status.is_success() || status.is_redirection() {
        return true;
    }
    // Somebody behind who is not there is no fault of the service.
    let refused = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
    assert!(refused, "answered with {status}");
    check_refusal(&method, response);
    false
}

/// A problem, or a page for people.
fn check_refusal(method: &Method, response: Response) {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let kind = kind.unwrap_or_else(|| panic!("{status} without a type"));
    let body = to_bytes(response.into_body(), ANSWER_BYTES_MAX).now_or_never();
    let body = body.expect("a refusal is whole").expect("a refusal is short");
    if *method == Method::HEAD || kind.as_bytes().starts_with(b"text/html") {
        return;
    }
    let told: Value = serde_json::from_slice(&body).expect("a refusal is JSON");
    if kind == "application/problem+json" {
        assert_eq!(told["status"], status.as_u16());
        assert!(told["code"].is_string(), "{told}");
    } else {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");
    }
}
