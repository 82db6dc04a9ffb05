//! Leases are kept alive, and their loss is told in time; a key on one is there for as long.

use crate::canned::{Canned, Reply, ok, problem};
use kvstore_client::{LeaseHandle, Registration};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

fn granted() -> Reply {
    Reply::Answer(201, Vec::new(), r#"{"id":7,"ttl_ms":600}"#.into())
}

fn renewed() -> Reply {
    ok(json!({"id": 7, "ttl_ms": 600}))
}

/// A store that grants a lease, and says this to all else that it is asked.
async fn granting(else_says: fn() -> Reply) -> Canned {
    Canned::start(move |seen| {
        if seen.target == "/v1/leases" {
            granted()
        } else {
            else_says()
        }
    })
    .await
}

/// A keeper that never says "lost" fails its test in place of holding it up.
async fn lost_in_time(lease: &LeaseHandle) {
    tokio::time::timeout(TTL * 5, lease.lost())
        .await
        .expect("the loss is never told");
}

const TTL: Duration = Duration::from_millis(600);

#[tokio::test]
async fn a_kept_lease_outlives_its_time_and_is_released() {
    let server = granting(renewed).await;
    let lease = server.client().lease_keep(TTL).await.unwrap();
    assert_eq!(lease.id(), 7);
    let lost = tokio::time::timeout(TTL * 2, lease.lost()).await;
    assert!(lost.is_err() && !lease.is_lost());
    assert!(lease.release().await.unwrap());
    let lines = server.lines();
    assert_eq!(lines[0], "POST /v1/leases");
    assert_eq!(lines[1], "POST /v1/leases/7/keepalive");
    assert_eq!(lines.last().unwrap(), "DELETE /v1/leases/7");
    assert_eq!(server.seen()[0].json(), json!({"ttl_ms": 600}));
    assert_eq!(server.seen()[1].header("idempotency-key"), "");
}

#[tokio::test]
async fn a_lease_the_store_no_longer_knows_is_lost_at_once() {
    let server = granting(|| problem(404, "lease-not-found")).await;
    let client = server.client();
    let began = Instant::now();
    let lease = client.lease_keep(TTL).await.unwrap();
    lost_in_time(&lease).await;
    assert!(lease.is_lost() && began.elapsed() < TTL);
    assert!(!lease.release().await.unwrap());
    assert_eq!(client.lease_get(7).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_that_does_not_answer_loses_the_lease_when_its_time_is_over() {
    let answered = Mutex::new(false);
    let server = Canned::start(move |_| {
        let first = !std::mem::replace(&mut *answered.lock().unwrap(), true);
        if first { granted() } else { Reply::Hang }
    })
    .await;
    let began = Instant::now();
    let lease = server.client().lease_keep(TTL).await.unwrap();
    lost_in_time(&lease).await;
    let took = began.elapsed();
    assert!(
        took > TTL / 2 && took < TTL + Duration::from_millis(200),
        "{took:?}"
    );
}

/// The process stood still, and nobody has looked at the clock since.
#[tokio::test]
async fn a_lease_whose_time_is_over_is_lost_before_anybody_looks() {
    let server = Canned::start(|_| granted()).await;
    let lease = server.client().lease_keep(TTL).await.unwrap();
    assert!(!lease.is_lost());
    let stood_still = Instant::now();
    while stood_still.elapsed() < TTL {
        std::hint::spin_loop();
    }
    assert!(lease.is_lost());
}

#[tokio::test]
async fn a_dropped_handle_ends_its_keeper() {
    let server = granting(renewed).await;
    let client = server.client();
    drop(client.lease_keep(TTL).await.unwrap());
    assert!(client.tasks().drain(Duration::from_secs(5)).await);
    assert_eq!(server.lines(), ["POST /v1/leases"]);
}

/// A put of which nobody knows what became of it may be done at any time. Put onto what was read, it is refused once
/// another was done.
#[tokio::test]
async fn a_registration_is_put_only_onto_what_was_read_before() {
    let (leases, registered) = (AtomicU64::new(0), Arc::new(Notify::new()));
    let told = registered.clone();
    let server = Canned::start(move |seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("POST", "/v1/leases") => {
            ok(json!({"id": leases.fetch_add(1, Ordering::Relaxed) + 1, "ttl_ms": 60_000}))
        }
        ("GET", _) if leases.load(Ordering::Relaxed) == 0 => {
            let absent = json!({"code": "key-not-found"}).to_string();
            Reply::Answer(404, vec![("x-kv-revision", "1".to_owned())], absent.into())
        }
        ("GET", _) => {
            let headers = [("etag", "\"9\""), ("x-kv-revision", "9")];
            let headers = headers.map(|(name, value)| (name, value.to_owned()));
            Reply::Answer(200, headers.to_vec(), "of the first put".into())
        }
        ("PUT", target) if target.ends_with("?lease=1") => problem(500, "internal"),
        ("PUT", _) => {
            told.notify_one();
            ok(json!({"key": "k", "revision": 10, "version": 2, "created": false}))
        }
        _ => ok(json!({})),
    })
    .await;
    let client = server.client();
    let registration = Registration {
        service: "payment".to_owned(),
        name: "pay1".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        version: "1".to_owned(),
        started_ms: 1,
    };
    tokio::select! {
        () = client.keep_registered(registration, Duration::from_mins(1)) => panic!("nobody told it to stop"),
        () = registered.notified() => {}
        () = tokio::time::sleep(TTL * 10) => panic!("not registered: {:?}", server.lines()),
    }
    let asked = server.seen();
    let asked = asked.iter().map(|seen| {
        let conditions = [seen.header("if-none-match"), seen.header("if-match")].concat();
        format!("{} {conditions}", seen.line())
    });
    let key = "/v1/kv/registry/payment/pay1";
    assert_eq!(
        asked.collect::<Vec<_>>(),
        [
            format!("GET {key} "),
            "POST /v1/leases ".to_owned(),
            format!("PUT {key}?lease=1 *"),
            "DELETE /v1/leases/1 ".to_owned(),
            format!("GET {key} "),
            "POST /v1/leases ".to_owned(),
            format!("PUT {key}?lease=2 \"9\""),
        ]
    );
}
