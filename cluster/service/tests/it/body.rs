//! Reading bodies strictly: size, time, syntax, types, depth.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use insta::assert_snapshot;
use serde::Deserialize;
use service::body::Object;
use service::fields::Fields;
use service::problem::{Problem, Result};
use service::query::Query;
use service::{bearer, body, edge, idempotency};
use tokio::time::Instant;

use crate::bent_requests::{feed_requests, runtime};
use crate::harness::Server;

#[derive(Debug, Deserialize)]
struct Lease {
    ttl_ms: u64,
    #[serde(default)]
    ops: Vec<Op>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put { key: String },
}

fn parse(text: impl Into<Bytes>) -> Result<Lease> {
    body::json(&HeaderMap::new(), &text.into())
}

fn told(problem: Problem) -> String {
    let mut lines = vec![format!(
        "{} {}: {}",
        problem.kind.status, problem.kind.code, problem.detail
    )];
    let faults = problem.errors.iter();
    lines.extend(faults.map(|fault| format!("{}: {}", fault.pointer, fault.detail)));
    lines.join("\n")
}

fn refused(text: impl Into<Bytes>) -> String {
    told(parse(text).unwrap_err())
}

#[test]
fn good_json_is_read_and_unknown_fields_are_ignored() {
    let lease = parse(r#"{"ttl_ms": 500, "ops": [{"put": {"key": "a"}}], "new": {"in": 2030}}"#).unwrap();
    assert_eq!(lease.ttl_ms, 500);
    let [Op::Put { key }] = &lease.ops[..] else {
        panic!("not one put: {lease:?}")
    };
    assert_eq!(key, "a");
}

#[test]
fn an_empty_body_counts_as_an_empty_object() {
    assert_snapshot!(refused(""), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ttl_ms: missing field `ttl_ms`
    ");
    let mut headers = HeaderMap::new();
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    for content_type in [None, Some(form)] {
        headers.extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
        let nothing: serde_json::Value = body::json(&headers, &Bytes::new()).unwrap();
        assert_eq!(nothing, serde_json::json!({}));
    }
}

#[test]
fn wrong_types_are_told_with_a_pointer() {
    assert_snapshot!(refused(r#"{"ttl_ms": "5"}"#), @r#"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ttl_ms: invalid type: string "5", expected a whole number, 0 or more
    "#);
    assert_snapshot!(refused(r#"{"ttl_ms": -5}"#), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ttl_ms: invalid value: integer `-5`, expected a whole number, 0 or more
    ");
    assert_snapshot!(refused(r#"{"ttl_ms": 5, "ops": [{"put": {"key": "a"}}, {"put": {"key": 7}}]}"#), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ops/1/put/key: invalid type: integer `7`, expected a string
    ");
    assert_snapshot!(refused(r#"{"ttl_ms": 5, "ops": [{"put": {}}]}"#), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ops/0/put/key: missing field `key`
    ");
    assert_snapshot!(refused(r#"{"ttl_ms": 5, "ops": [{"drop": {}}]}"#), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    /ops/0: unknown variant `drop`, expected `put`
    ");
    assert_snapshot!(refused("[]"), @r"
    422 invalid-request: The JSON is well-formed, but a field of it is not what this route takes.
    : expected an object
    ");
}

#[derive(Debug, Deserialize)]
struct Basket {
    lines: Vec<Object<Line>>,
}

#[derive(Debug, Deserialize)]
struct Line {
    product: String,
    quantity: u64,
}

/// Serde alone would take it, field by field.
#[test]
fn an_array_is_no_object_within_a_request_either() {
    let read = |lines: &str| {
        let text = format!(r#"{{"lines": [{{"quantity": 2, "new": [1], "product": "a"}}{lines}]}}"#);
        body::json::<Basket>(&HeaderMap::new(), &text.into())
    };
    let basket = read("").unwrap();
    let [Object(line)] = &basket.lines[..] else {
        panic!("not one line: {basket:?}")
    };
    assert_eq!((line.product.as_str(), line.quantity), ("a", 2));
    let refused = |lines: &str| {
        let problem = read(lines).unwrap_err();
        let told = problem.errors.iter();
        let told = told.map(|fault| format!("{} {}: {}", problem.kind.status, fault.pointer, fault.detail));
        told.collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(refused(r#", ["a", 2]"#), @"422 /lines/1: invalid type: sequence, expected an object");
    assert_snapshot!(refused(", 7"), @"422 /lines/1: invalid type: integer `7`, expected an object");
    // What is wrong within an object is told as ever.
    assert_snapshot!(refused(r#", {"product": "a"}"#), @"422 /lines/1/quantity: missing field `quantity`");
    assert_snapshot!(refused(r#", {"product": 7}"#), @"422 /lines/1/product: invalid type: integer `7`, expected a string");
}

#[test]
fn broken_syntax_is_malformed_also_behind_a_wrong_type() {
    assert_snapshot!(refused(r#"{"ttl_ms": 5"#), @"400 malformed-json: The body is not valid JSON at line 1, column 12.");
    assert_snapshot!(refused(r#"{"ttl_ms": "5", "x": }"#), @"400 malformed-json: The body is not valid JSON at line 1, column 22.");
    assert_snapshot!(refused(r#"{"ttl_ms": 5} trailing"#), @"400 malformed-json: The body is not valid JSON at line 1, column 15.");
    assert_snapshot!(refused(&b"{\"ttl_ms\": \"\xff\"}"[..]), @"400 malformed-json: The body is not valid JSON at line 1, column 13.");
}

#[test]
fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
    let nested = |levels: usize| format!("{{\"x\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(body::json::<serde_json::Value>(&HeaderMap::new(), &nested(64).into()).is_ok());
    assert_snapshot!(refused(nested(65)), @"400 malformed-json: The JSON is nested deeper than 64 levels.");
    assert!(refused(nested(1_000_000)).starts_with("400 malformed-json"));
    let text = format!(r#"{{"ttl_ms": 1, "x": "\"{}"}}"#, "[".repeat(100));
    assert_eq!(parse(text).unwrap().ttl_ms, 1);
}

#[test]
fn only_json_is_taken() {
    let with = |content_type: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let body = Bytes::from_static(b"{}");
        body::json::<serde_json::Value>(&headers, &body).map_err(told)
    };
    assert!(with("application/json").is_ok());
    assert!(with("Application/JSON; charset=utf-8").is_ok());
    assert_snapshot!(with("text/plain").unwrap_err(), @"415 unsupported-media-type: This route takes JSON: send Content-Type: application/json, or none.");
    assert!(with("application/json-seq").is_err());
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_read_whole() {
    let whole = body::read(Body::from(vec![7; 1000]), 1000, soon()).await.unwrap();
    assert_eq!(whole.len(), 1000);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let announced = body::read(Body::from(vec![7; 1001]), 1000, soon()).await;
    assert_snapshot!(told(announced.unwrap_err()), @"413 too-large: The body is larger than the 1000 bytes allowed here.");
    let pieces = (0..3).map(|_| Ok::<_, Infallible>(Bytes::from(vec![7; 400])));
    let streamed = body::read(Body::from_stream(stream::iter(pieces)), 1000, soon()).await;
    assert_eq!(streamed.unwrap_err().kind.code, "too-large");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let silent = Body::from_stream(stream::pending::<std::result::Result<Bytes, Infallible>>());
    let deadline = Instant::now() + Duration::from_millis(10);
    assert_snapshot!(told(body::read(silent, 10, deadline).await.unwrap_err()), @"400 body-timeout: The body did not arrive within the time a request may take.");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let broken = std::io::Error::other("reset by 10.0.0.1");
    let broken = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"a")), Err(broken)]));
    assert_snapshot!(told(body::read(broken, 10, soon()).await.unwrap_err()), @"400 malformed-body: The body broke off before it was complete.");
}

/// Or the next request on the connection would meet one that is being closed.
#[tokio::test]
async fn a_refused_body_is_taken_off_the_wire() {
    let read = async |body: Body| {
        let deadline = Instant::now() + Duration::from_secs(5);
        body::read(body, 1000, deadline).await.map(|_body| "read")
    };
    let server = Server::start(Router::new().route("/", post(read))).await;
    let large = "x".repeat(1 << 20);
    let first = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{large}",
        large.len()
    );
    let second = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let told = server.exchange((first + second).as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 413"), "{told}");
    assert!(told.ends_with("alive\n"), "{told}");
}

#[test]
fn bent_requests_are_read_or_refused() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let typed = async |headers: HeaderMap, body: Body| {
        let body = body::read(body, 10_000, soon()).await?;
        body::json::<Lease>(&headers, &body).map(|lease| lease.ttl_ms.to_string())
    };
    let members = async |headers: HeaderMap, body: Bytes| {
        let mut fields = Fields::read(&headers, &body)?;
        let (_name, _count) = (
            fields.text("name"),
            fields.optional::<u8>("count", "a small number"),
        );
        fields.finish().map(|()| "read")
    };
    let asked = async |uri: Uri, headers: HeaderMap| {
        let query = Query::of(&uri);
        let (_text, _number, _flag) = (query.text("text")?, query.number("number")?, query.flag("flag")?);
        let (_token, _key) = (bearer::token(&headers)?, idempotency::key(&headers)?);
        Ok::<_, Problem>("read")
    };
    let routes = Router::new().route("/typed", post(typed));
    let routes = routes
        .route("/members", post(members))
        .route("/asked", get(asked));
    let whole = [
        r#"POST /typed
content-type: application/json

{"ttl_ms": 500, "ops": [{"put": {"key": "a\u00e9~/"}}], "new": {"in": [[[2030]]]}}"#,
        "POST /members\n\n{\"name\": \"a\", \"count\": 255, \"more\": -1e400}",
        "GET /asked?text=a+b%2B%c3%a9&number=18446744073709551615&flag=1\nauthorization: Bearer x\nidempotency-key: k\n\n",
    ];
    feed_requests(&edge::wrap(routes, "test"), &whole.map(str::to_owned));
}
