//! A node that stops lets its callers go in time, and the others carry on.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::events::{Event, Events};
use crate::harness::{Client, Cluster, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_watches_do_not_hold_up_a_stop() {
    let mut cluster = Cluster::start(1).await;
    let mut events = Events::of_space(&cluster.client(0), "").await;
    let began = Instant::now();
    cluster.stop_node(0).await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "stopped after {:?}",
        began.elapsed()
    );
    while let Some(event) = events.next_or_end().await {
        assert_eq!(event.name, "progress");
    }
}

/// Also without a majority; only that it heard of one lately is not told then.
async fn tells_of_itself(client: &Client) {
    for path in ["/v1/cluster", "/v1/status"] {
        client.get(path).await.expect(200);
        let late = client.get(&format!("{path}?consistency=bounded:100")).await;
        late.refused(503, "stale");
    }
}

/// What it has, it reads; and it does not say that this is all.
async fn reads_what_it_has(client: &Client, last: u64) {
    client.read("k").await.refused(503, "no-leader");
    let local = client
        .get(&format!("{}?consistency=local", client.path("k")))
        .await
        .expect(200);
    assert_eq!(
        (local.text().as_str(), local.header("x-kv-consistency")),
        ("after", "local")
    );
    client
        .get(&format!("{}?consistency=bounded:100", client.path("k")))
        .await
        .refused(503, "stale");
    client
        .get(&format!("{}?consistency=at_least:{}", client.path("k"), last + 1))
        .await
        .refused(503, "behind");
}

/// It heard of a majority lately, although nobody asked it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_nobody_read_from_serves_bounded_reads_when_it_is_alone() {
    const UNREAD: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    client.put("k", "v").await.expect(200);
    let leader = client.get("/v1/cluster").await.json()["leader"].as_u64().unwrap();
    let first = usize::try_from(leader - 1).unwrap();
    let alone = cluster.client((first + 2) % 3);
    tokio::time::sleep(UNREAD).await;
    cluster.stop_node(first).await;
    cluster.stop_node((first + 1) % 3).await;
    let path = client.path("k");
    let bounded = format!("{path}?consistency=bounded:{}", UNREAD.as_millis() - 500);
    let read = alone.get(&bounded).await;
    assert_eq!(read.expect(200).text(), "v");
    alone.get(&path).await.refused(503, "no-leader");
}

const LEASE_MS: u64 = 60_000;

async fn left_ms(client: &Client, lease: u64) -> u64 {
    let lease = client.get(&format!("/v1/leases/{lease}")).await;
    lease.expect(200).json()["remaining_ms"].as_u64().unwrap()
}

/// A lease of which some time has gone.
async fn old_lease(client: &Client) -> u64 {
    let granted = client.post("/v1/leases", &json!({"ttl_ms": LEASE_MS})).await;
    let lease = granted.expect(201).json()["id"].as_u64().unwrap();
    wait_for("some time of the lease to go", async || {
        let left = left_ms(client, lease).await;
        (left < LEASE_MS - 300).then_some(()).ok_or(left)
    })
    .await;
    lease
}

/// The new leader gave it all of its time again, and who follows tells the same.
async fn begins_anew(client: &Client, lease: u64, stopped: Instant) {
    wait_for("the lease to begin anew", async || {
        let left = left_ms(client, lease).await;
        let ago = u64::try_from(stopped.elapsed().as_millis()).unwrap();
        (left + ago >= LEASE_MS).then_some(()).ok_or((left, ago))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_and_know_what_was_written() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    let leader = client.get("/v1/cluster").await.json()["leader"].as_u64().unwrap();
    let stopped = usize::try_from(leader - 1).unwrap();
    let (rest, watching) = (
        cluster.client((stopped + 1) % 3),
        cluster.client((stopped + 2) % 3),
    );
    let mut events = Events::open(&watching, &format!("prefix={}", rest.key(""))).await;
    let first = rest.put("k", "before").await.number("x-kv-revision");
    let (lease, stopping) = (old_lease(&rest).await, Instant::now());
    cluster.stop_node(stopped).await;
    let second = rest.put("k", "after").await.number("x-kv-revision");
    assert_eq!(
        events
            .changes(2)
            .await
            .iter()
            .map(Event::revision)
            .collect::<Vec<_>>(),
        [first, second]
    );
    for client in [&rest, &watching] {
        begins_anew(client, lease, stopping).await;
    }
    wait_for("the stopped node to be seen as such", async || {
        let cluster = rest.get("/v1/cluster").await.expect(200).json();
        let role = cluster["members"][stopped]["role"].clone();
        if role == "unreachable" { Ok(()) } else { Err(role) }
    })
    .await;
    cluster.stop_node((stopped + 2) % 3).await;
    // One of three: nothing can be decided, and that is said.
    let request = rest.request(reqwest::Method::PUT, &rest.path("k")).body("lost");
    let refused = rest.send(request).await;
    assert!(
        [("no-leader"), ("outcome-unknown")].contains(&refused.code().as_str()) && refused.status == 503,
        "{}",
        refused.text()
    );
    reads_what_it_has(&rest, second).await;
    tells_of_itself(&rest).await;
    wait_for("the node to say that it is not ready", async || {
        let answer = rest.get("/readyz").await;
        if answer.status == 503 {
            Ok(answer.refused(503, "not-ready"))
        } else {
            Err(answer)
        }
    })
    .await;
    let unknown = rest.with_token("who").get("/v1/status").await;
    unknown.refused(503, "no-leader");
    assert_eq!(
        rest.txn(&json!({"then": 1})).await.status,
        422,
        "what is wrong is told all the same"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_one_to_stop_waits_for_nobody() {
    let mut cluster = Cluster::start(3).await;
    for node in [2, 1, 0] {
        let began = Instant::now();
        cluster.stop_node(node).await;
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1500), "node {node} took {took:?}");
    }
}
