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
    rest.read("k").await.refused(503, "no-leader");
    let local = rest
        .get(&format!("{}?consistency=local", rest.path("k")))
        .await
        .expect(200);
    assert_eq!(
        (local.text().as_str(), local.header("x-kv-consistency")),
        ("after", "local")
    );
    rest.get(&format!("{}?consistency=bounded:100", rest.path("k")))
        .await
        .refused(503, "stale");
    rest.get(&format!("{}?consistency=at_least:{}", rest.path("k"), second + 1))
        .await
        .refused(503, "behind");
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
