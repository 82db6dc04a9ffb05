//! Leases are kept alive, and their loss is told in time.

use crate::canned::{Canned, Reply, ok, problem};
use kvstore_client::LeaseHandle;
use serde_json::json;
use std::sync::Mutex;
use std::time::{Duration, Instant};

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
