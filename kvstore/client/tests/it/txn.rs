//! Transactions, the loops built on them, and keys that travel in bodies.

use crate::canned::{Canned, Reply, ok, problem};
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::txn::Op;
use kvstore_client::{Error, PutOptions, ReadOptions, Txn};
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;

#[tokio::test]
async fn add_tells_the_sum_or_the_refusal() {
    let server = Canned::start(|seen| {
        if seen.json()["then"][0]["add"]["by"] == 1 {
            ok(json!({"revision": 3, "succeeded": true, "branch": "then", "results": [{"add": {"value": 42}}]}))
        } else {
            ok(json!({"revision": 3, "succeeded": false, "branch": "failed", "failed_op": 0, "results": []}))
        }
    })
    .await;
    let client = server.client();
    assert_eq!(client.add("n", 1, None, None).await.unwrap(), Some(42));
    assert_eq!(client.add("n", -9, Some(0), Some(50)).await.unwrap(), None);
    let seen = server.seen();
    assert_eq!(seen[0].line(), "POST /v1/txn");
    assert_eq!(
        seen[1].json(),
        json!({"then": [{"add": {"key": "n", "by": -9, "min": 0, "max": 50}}]})
    );
    assert_ne!(seen[0].header("idempotency-key"), "");
}

#[tokio::test]
async fn a_transaction_that_only_reads_is_a_read() {
    let server = Canned::start(|_| Reply::Cut).await;
    let client = server.client().with_deadline(Duration::from_millis(100));
    let txn = Txn::new().then(Op::get("a")).failed(Op::get_prefix("b", None));
    let error = client.txn(txn).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(server.seen()[0].header("idempotency-key"), "");
}

fn found(value: &'static str, revision: &str, lease: &str) -> Reply {
    let headers = vec![
        ("etag", format!("\"{revision}\"")),
        ("x-kv-revision", revision.to_owned()),
        ("x-kv-version", "1".to_owned()),
        ("x-kv-lease", lease.to_owned()),
    ];
    Reply::Answer(200, headers, value.into())
}

#[tokio::test]
async fn update_tries_again_when_overtaken_and_keeps_the_lease() {
    let puts = Mutex::new(0);
    let server = Canned::start(move |seen| {
        if seen.method == "GET" {
            return found("5", "9", "77");
        }
        let mut puts = puts.lock().unwrap();
        *puts += 1;
        if *puts < 3 {
            problem(412, "precondition-failed")
        } else {
            ok(json!({"key": "n", "revision": 10, "version": 2, "created": false}))
        }
    })
    .await;
    let client = server.client();
    let put = client
        .update("n", |kv| Some([&kv.unwrap().bytes()[..], b"+"].concat().into()))
        .await;
    assert_eq!(put.unwrap().unwrap().revision, 10);
    let seen = server.seen();
    assert_eq!(seen.len(), 6);
    let last = &seen[5];
    assert_eq!(
        (last.line().as_str(), last.header("if-match")),
        ("PUT /v1/kv/n?lease=77", "\"9\"")
    );
    assert_eq!(&last.body[..], b"5+");
    assert_ne!(seen[3].header("idempotency-key"), last.header("idempotency-key"));
}

#[tokio::test]
async fn update_is_bounded() {
    let server = Canned::start(|seen| {
        if seen.method == "GET" {
            found("5", "9", "0")
        } else {
            problem(412, "precondition-failed")
        }
    })
    .await;
    let client = server.client().with_deadline(Duration::from_millis(200));
    let error = client.update("n", |_| Some("x".into())).await.unwrap_err();
    assert!(
        matches!(&error, Error::Contended { key, attempts } if key == "n" && *attempts > 1),
        "{error:?}"
    );
    assert_eq!(client.update("n", |_| None).await.unwrap(), None);
}

#[tokio::test]
async fn dotted_keys_travel_in_bodies() {
    let server = Canned::start(|seen| {
        let row = json!({"key": "a/../b", "value": "x", "create_revision": 1, "mod_revision": 4, "version": 1, "lease": 0});
        if seen.method == "GET" {
            return ok(json!({"revision": 9, "kvs": [row], "count": 1, "more": false}));
        }
        let body = seen.json();
        // As the store judges a condition on the revision 0: it holds of a key that is absent.
        let is_guarded = body["if"].as_array().is_some_and(|conditions| conditions.iter().any(|it| it["target"] == "version"));
        let result = if body["if"][0]["operand"] == 3 || (body["if"][0]["operand"] == 0 && is_guarded) {
            json!({"revision": 9, "succeeded": false, "branch": "else", "results": [{"get": {"kvs": [row], "count": 1}}]})
        } else if body["then"][0]["put"].is_object() {
            json!({"revision": 10, "succeeded": true, "branch": "then", "results": [{"put": {"version": 1}}]})
        } else if body["then"][0]["delete"].is_object() {
            json!({"revision": 10, "succeeded": true, "branch": "then", "results": [{"delete": {"deleted": 1}}]})
        } else {
            json!({"revision": 9, "succeeded": true, "branch": "then", "results": [{"get": {"kvs": [row], "count": 1}}]})
        };
        ok(result)
    })
    .await;
    let client = server.client();
    let key = "a/../b";
    assert_eq!(client.get(key).await.unwrap().unwrap().mod_revision, 4);
    let put = client.put(key, "x").await.unwrap();
    assert_eq!((put.revision, put.created), (10, true));
    assert_eq!(client.delete(key).await.unwrap().deleted, 1);
    for result in [
        client
            .put_with(
                key,
                "x",
                PutOptions {
                    if_match: Some(3),
                    ..PutOptions::default()
                },
            )
            .await
            .map(drop),
        client.delete_with(key, Some(3)).await.map(drop),
        client.delete_with(key, Some(0)).await.map(drop),
    ] {
        match result.unwrap_err() {
            Error::Conflict { revision, .. } => assert_eq!(revision, Some(4)),
            other => panic!("{other:?}"),
        }
    }
    let local = ReadOptions {
        consistency: Consistency::Local,
        revision: None,
    };
    assert!(client.get_with(key, local).await.unwrap().is_some());
    let lines = server.lines();
    assert_eq!(lines[..6], ["POST /v1/txn"; 6]);
    assert_eq!(lines[6], "GET /v1/kv?prefix=a%2F..%2Fb&limit=1&consistency=local");
}

#[tokio::test]
async fn a_walk_pins_the_revision_of_its_first_page() {
    let server = Canned::start(|seen| {
        let row = |key: &str| json!({"key": key, "value": "x", "create_revision": 1, "mod_revision": 4, "version": 1, "lease": 0});
        match seen.line().as_str() {
            "GET /v1/kv?prefix=p%2F&uncounted=1" => ok(json!({"revision": 9, "kvs": [row("p/a")], "count": 1, "more": true, "cursor": "c&1"})),
            "GET /v1/kv?prefix=p%2F&cursor=c%261&uncounted=1" => ok(json!({"revision": 9, "kvs": [row("p/b")], "count": 1, "more": false})),
            "POST /v1/leases" => Reply::Answer(201, Vec::new(), r#"{"id":5,"ttl_ms":30000}"#.into()),
            "DELETE /v1/leases/5" => ok(json!({})),
            other => panic!("{other}"),
        }
    })
    .await;
    let scan = server.client().scan("p/").await.unwrap();
    let keys: Vec<_> = scan.kvs.iter().map(|kv| kv.key.as_str()).collect();
    assert_eq!((scan.revision, keys), (9, vec!["p/a", "p/b"]));
    let seen = server.seen();
    let lines: Vec<_> = seen.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(lines, ["GET", "POST", "GET", "DELETE"]);
    assert_eq!(seen[1].json(), json!({"ttl_ms": 30000, "pin": 9}));
}
