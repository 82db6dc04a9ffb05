//! Answers to idempotency keys whose time is over. The tests move the cluster's clock: no answer is kept for so short a
//! time that one could wait for its end.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::half_made::{app, request, seed, told};
use crate::command::{Proposal, encode_commands};
use crate::raft::bare::{Bare, DEADLINE};
use crate::raft::start::root_rules;

/// A node that leads, and what callers meet of it.
async fn led() -> (Vec<Bare>, Router) {
    let nodes = Bare::cluster(1).await;
    seed(&nodes[0], "an id", "root", root_rules()).await;
    let app = app(&nodes[0]);
    (nodes, app)
}

/// A write whose answer is to be kept for so many seconds.
fn put(once: &'static str, ttl_s: &'static str, value: &'static str) -> Request<Body> {
    let mut put = request("PUT", "/v1/kv/k", Some("root"));
    let headers = put.headers_mut();
    headers.insert("idempotency-key", HeaderValue::from_static(once));
    headers.insert("idempotency-ttl", HeaderValue::from_static(ttl_s));
    *put.body_mut() = Body::from(value);
    put
}

/// The cluster's clock goes on by so much at once.
async fn pass(node: &Bare, ms: u64) {
    let nothing = Proposal::new(node.desk.machine.now_ms() + ms, &encode_commands(&[]));
    node.desk.raft.client_write(nothing).await.unwrap();
}

#[tokio::test]
async fn an_answer_ends_after_its_time_which_is_half_a_minute_at_least() {
    let (nodes, app) = led().await;
    let are_replayed = async || {
        let mut replayed = Vec::new();
        for (once, ttl_s) in [("short", "1"), ("long", "45")] {
            let told = told(&app, put(once, ttl_s, "v")).await;
            assert_eq!(told.status, 200, "{}", told.body);
            replayed.push(told.replayed);
        }
        replayed
    };
    assert_eq!(are_replayed().await, [false, false]);
    // What was done again is kept again.
    for (passed_ms, kept) in [
        (20_000, [true, true]),
        (11_000, [false, true]),
        (20_000, [true, false]),
    ] {
        pass(&nodes[0], passed_ms).await;
        assert_eq!(are_replayed().await, kept, "after {passed_ms} ms more");
    }
    for node in nodes {
        node.end().await;
    }
}

/// The changes that a watch tells of first.
async fn changes(app: &Router, watch: &str, count: usize) -> Vec<Value> {
    let answer = app.clone().oneshot(request("GET", watch, Some("root")));
    let mut pieces = answer.await.unwrap().into_body().into_data_stream();
    let mut text = String::new();
    loop {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
        let changes: Vec<Value> = events.filter(|event| event["mod_revision"].is_u64()).collect();
        if changes.len() >= count {
            return changes;
        }
        let piece = timeout(DEADLINE, pieces.next()).await;
        let piece = piece.unwrap_or_else(|_elapsed| panic!("no event in time; so far: {text}"));
        // A piece is whole events.
        let piece = piece.expect("the watch goes on").unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
}

#[tokio::test]
async fn a_key_that_was_used_again_tells_of_its_last_use_alone() {
    let (nodes, app) = led().await;
    let first = told(&app, put("again", "1", "one")).await.body["revision"].clone();
    told(&app, put("again", "1", "two"))
        .await
        .refused(422, "idempotency-key-reused");
    pass(&nodes[0], 31_000).await;
    let second = told(&app, put("again", "1", "two")).await.body["revision"].clone();
    let told = changes(&app, &format!("/v1/watch?aside=1&from={first}"), 2).await;
    let told: Vec<_> = told
        .iter()
        .map(|change| (&change["mod_revision"], &change["kept"]["revision"]))
        .collect();
    assert_eq!(told, [(&first, &Value::Null), (&second, &second)]);
    for node in nodes {
        node.end().await;
    }
}
