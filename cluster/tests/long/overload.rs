//! Ten times as many writes as three nodes can do, on thirty times as many connections.
//! Invariant: what can be done is done nearly as fast as without the rest, everybody is answered in the end, and nobody
//! loses the lead.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ALL;
use crate::drive::Order;
use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, say, verify};

const PUTS: Order = Order::puts(8, 1000);
/// Enough connections that the rate is asked for while most of them wait.
const CLIENTS: u32 = 2000;
/// For so long calls are to begin; all of them are made.
const FLOOD_SECONDS: u64 = 2;
const TIMES: u64 = 10;
const GOODPUT_PERCENT: u64 = 80;

fn a_second(seen: &Value) -> u64 {
    let operations = seen["figures"]["operations"].as_u64().unwrap();
    let seconds = Duration::from_secs_f64(seen["figures"]["seconds"].as_f64().unwrap());
    operations * 1000 / u64::try_from(seconds.as_millis()).unwrap()
}

#[tokio::test]
async fn ten_times_the_load_costs_little_of_what_can_be_done_and_no_election() {
    let cluster = Cluster::start(3).await;
    let sustainable = a_second(&PUTS.drive(&cluster).await);
    let term = cluster.client().status().await.unwrap().term;
    let judged = Load::start(
        &cluster,
        Plan {
            pause: Duration::from_millis(100),
            ..Plan::default()
        },
    );
    let flood = Order {
        clients: CLIENTS,
        seconds: FLOOD_SECONDS,
        rate: Some(sustainable * TIMES),
        ..PUTS
    };
    let seen = flood.drive(&cluster).await;
    assert!(
        a_second(&seen) * 100 >= sustainable * GOODPUT_PERCENT,
        "{} instead of {sustainable}: {seen}",
        a_second(&seen)
    );
    assert_eq!(seen["errors"], serde_json::json!({}), "{seen}");
    let present = wait_until("the flood is over", Duration::from_secs(30), async || {
        let present = cluster.client().status().await;
        present.map_err(|error| format!("{error:?}"))
    })
    .await;
    assert_eq!(present.term, term, "somebody campaigned under load");
    judged.progress(Instant::now(), 50).await;
    let book = judged.stop().await;
    say(&book.summary());
    verify(&cluster, &ALL, book).await;
}
