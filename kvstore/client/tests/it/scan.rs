//! Walks over pages while the store grants no pin, or does not take it back.

use crate::canned::{Canned, Reply, Seen, ok, problem};
use serde_json::json;
use std::time::{Duration, Instant};

const PAGES: u32 = 5;

/// The page that the cursor names, which is its number.
fn page(seen: &Seen) -> Reply {
    let cursor = seen.target.split_once("cursor=").map(|(_, rest)| &rest[..1]);
    let number: u32 = cursor.map_or(1, |number| number.parse().unwrap());
    let key = format!("p/{number}");
    let row =
        json!({"key": key, "value": "x", "create_revision": 1, "mod_revision": 4, "version": 1, "lease": 0});
    let more = number < PAGES;
    let mut page = json!({"revision": 9, "kvs": [row], "count": 1, "more": more});
    if more {
        page["cursor"] = json!((number + 1).to_string());
    }
    ok(page)
}

/// Walks while everything about leases is answered like this; answers how long it took and what was asked.
async fn walk(lease: fn(&Seen) -> Reply) -> (Duration, Vec<String>) {
    let server = Canned::start(move |seen| {
        if seen.target.starts_with("/v1/kv") {
            page(seen)
        } else {
            lease(seen)
        }
    })
    .await;
    let began = Instant::now();
    let scan = server.client().scan("p/").await.unwrap();
    let took = began.elapsed();
    assert_eq!(scan.kvs.len(), PAGES as usize);
    (took, server.seen().into_iter().map(|seen| seen.method).collect())
}

#[tokio::test]
async fn a_walk_that_gets_no_pin_does_not_ask_at_each_page_and_not_for_long() {
    let refusals: [fn(&Seen) -> Reply; 3] = [
        |_| problem(503, "overloaded"),
        |_| problem(503, "mirror-lost"),
        |_| Reply::Hang,
    ];
    for refused in refusals {
        let (took, asked) = walk(refused).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        let tries = asked
            .iter()
            .skip(1)
            .take_while(|method| *method == "POST")
            .count();
        assert!(tries >= 1, "{asked:?}");
        let rest: Vec<&str> = asked.iter().skip(1 + tries).map(String::as_str).collect();
        assert_eq!(rest, ["GET"; 4], "nothing more was asked for between pages");
    }
}

/// As where a commit takes long: whoever gave up earlier would take the leader for one that fails.
#[tokio::test]
async fn a_pin_that_takes_its_time_is_had_at_the_first_try() {
    let (_, asked) = walk(|seen| match seen.method.as_str() {
        "POST" => Reply::Late(Duration::from_millis(200), r#"{"id":5,"ttl_ms":30000}"#.into()),
        _ => ok(json!({"deleted": true})),
    })
    .await;
    assert_eq!(asked, ["GET", "POST", "GET", "GET", "GET", "GET", "DELETE"]);
}

#[tokio::test]
async fn a_pin_that_ran_out_is_asked_for_anew() {
    let (_, asked) = walk(|seen| match seen.target.as_str() {
        // One that is to be renewed at once, and then is not there.
        "/v1/leases" => Reply::Answer(201, Vec::new(), r#"{"id":5,"ttl_ms":0}"#.into()),
        _ => problem(404, "lease-not-found"),
    })
    .await;
    assert_eq!(asked[0], "GET");
    let between = ["POST", "POST", "GET"].repeat(4);
    assert_eq!(asked[1..], between, "asked for, and not renewed");
}

#[tokio::test]
async fn a_pin_that_is_not_taken_back_holds_up_nobody() {
    let (took, asked) = walk(|seen| match seen.method.as_str() {
        "POST" => Reply::Answer(201, Vec::new(), r#"{"id":5,"ttl_ms":30000}"#.into()),
        _ => problem(503, "mirror-lost"),
    })
    .await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(asked[..6], ["GET", "POST", "GET", "GET", "GET", "GET"]);
    assert_eq!(asked.last().unwrap(), "DELETE");
}
