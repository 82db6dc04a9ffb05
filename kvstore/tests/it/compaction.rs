//! Reads of the past, compaction, and the hash over a revision.

use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Events;
use crate::harness::{Client, Cluster, wait_for};

cases! {
    the_past_stays_readable
    compaction_gives_up_what_lies_before
    a_pin_holds_history
    all_members_have_one_hash
}

async fn the_past_stays_readable(client: &Client) {
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(client.put("k", format!("{n}")).await.number("x-kv-revision"));
        client.put(&format!("other/{n}"), "v").await;
    }
    let deleted = client
        .delete(&client.path("k"))
        .await
        .expect(200)
        .number("x-kv-revision");
    for (n, revision) in revisions.iter().enumerate() {
        for at in [*revision, revision + 1] {
            let read = client
                .get(&format!("{}?revision={at}", client.path("k")))
                .await
                .expect(200);
            assert_eq!(
                (read.text(), read.number("x-kv-version")),
                (n.to_string(), n as u64 + 1)
            );
            assert_eq!(read.header("etag"), format!("\"{revision}\""));
        }
        let page = client
            .get(&format!("/v1/kv?prefix={}&revision={revision}", client.key("")))
            .await
            .expect(200)
            .json();
        assert_eq!(
            (&page["revision"], page["kvs"].as_array().unwrap().len()),
            (&json!(revision), n + 1)
        );
    }
    let read = async |at: u64| client.get(&format!("{}?revision={at}", client.path("k"))).await;
    read(revisions[0] - 1).await.refused(404, "key-not-found");
    read(deleted).await.refused(404, "key-not-found");
    read(deleted - 1).await.expect(200);
    read(client.revision().await + 1000)
        .await
        .refused(422, "future-revision");
}

async fn compaction_gives_up_what_lies_before(client: &Client) {
    let first = client.put("k", "1").await.number("x-kv-revision");
    client.put("gone", "x").await;
    client.delete(&client.path("gone")).await.expect(200);
    let second = client.put("k", "2").await.number("x-kv-revision");
    let third = client.put("k", "3").await.number("x-kv-revision");
    let compacted = client
        .post("/v1/compact", &json!({"revision": second}))
        .await
        .expect(200)
        .json();
    assert_eq!(compacted, json!({"revision": second}));
    let read = async |at: u64| client.get(&format!("{}?revision={at}", client.path("k"))).await;
    assert_eq!(
        read(second).await.expect(200).text(),
        "2",
        "reads at it still work"
    );
    assert_eq!(read(third).await.expect(200).text(), "3");
    let refused = read(first).await.refused(410, "compacted");
    assert_eq!(refused.json()["compacted_revision"], second);
    client
        .get(&format!("/v1/kv?revision={first}"))
        .await
        .refused(410, "compacted");
    client
        .get(&format!("/v1/hash?revision={first}"))
        .await
        .refused(410, "compacted");
    let watch = async |from: u64| {
        client
            .send(client.request(
                Method::GET,
                &format!("/v1/watch?prefix={}&from={from}", client.key("")),
            ))
            .await
    };
    watch(first).await.refused(410, "compacted");
    watch(second).await.refused(410, "compacted");
    let mut events = Events::open(client, &format!("prefix={}&from={}", client.key(""), second + 1)).await;
    assert_eq!(events.change().await.revision(), third);
    let again = client
        .post("/v1/compact", &json!({"revision": first}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        again,
        json!({"revision": second}),
        "less than is gone already changes nothing"
    );
    client
        .post("/v1/compact", &json!({"revision": third + 1000}))
        .await
        .refused(422, "future-revision");
    assert_eq!(
        client
            .post("/v1/compact", &json!({}))
            .await
            .refused(422, "invalid-request")
            .pointers(),
        ["/revision"]
    );
}

async fn a_pin_holds_history(client: &Client) {
    let first = client.put("k", "1").await.number("x-kv-revision");
    let second = client.put("k", "2").await.number("x-kv-revision");
    let pinned = client
        .post("/v1/leases", &json!({"ttl_ms": 60_000, "pin": first}))
        .await
        .expect(201)
        .json();
    client
        .post("/v1/compact", &json!({"revision": second}))
        .await
        .expect(200);
    client
        .post("/v1/leases", &json!({"ttl_ms": 60_000, "pin": first}))
        .await
        .refused(410, "compacted");
    client
        .post("/v1/leases", &json!({"ttl_ms": 60_000, "pin": second + 1000}))
        .await
        .refused(422, "future-revision");
    let shown = client
        .get(&format!("/v1/leases/{}", pinned["id"]))
        .await
        .expect(200)
        .json();
    assert_eq!(shown["pin"], first);
    client
        .delete(&format!("/v1/leases/{}", pinned["id"]))
        .await
        .expect(200);
}

async fn all_members_have_one_hash(client: &Client) {
    let revision = client.put("k", "1").await.number("x-kv-revision");
    let at = |client: &Client, revision: u64| {
        let client = client.clone();
        async move {
            client
                .get(&format!("/v1/hash?revision={revision}"))
                .await
                .expect(200)
                .json()
        }
    };
    let before = at(client, revision).await;
    assert_eq!(before["revision"], revision);
    assert_eq!(before, at(&client.elsewhere(), revision).await);
    assert_eq!(
        before,
        client.get("/v1/hash").await.expect(200).json(),
        "kept up with each write as well"
    );
    let changed = client.put("k", "2").await.number("x-kv-revision");
    assert_ne!(before["hash"], at(client, changed).await["hash"]);
    assert_eq!(before, at(client, revision).await, "recomputed over the past");
    assert_eq!(before["hash"].as_str().unwrap().len(), 32);
    client
        .get("/v1/hash?revision=99999999")
        .await
        .refused(422, "future-revision");
}

/// Somebody ends the pin of a walk at this revision. It gets another of the same, though one of an older revision would keep
/// as much: that would be kept up for as long as the walk goes on, and with it a past that nobody reads.
async fn ends_and_goes_on(client: &Client, own: Value, revision: u64, next: &str) -> Value {
    client.delete(&format!("/v1/leases/{own}")).await.expect(200);
    wait_for("the walk to have another pin", async || {
        client.get(next).await.expect(200);
        let leases = client.get("/v1/leases").await.expect(200).json();
        let mut pins = leases.as_array().unwrap().iter();
        let pin = pins.find(|lease| lease["pin"] == revision && lease["id"] != own);
        pin.map(|pin| pin["id"].clone()).ok_or(leases)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_renews_the_pin_that_it_lives_by() {
    /// Of the 61 seconds of a pin.
    const MOST_MS: u64 = 60_500;
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let mut revision = 0;
    for name in ["a", "b", "c"] {
        revision = client.put(name, "v").await.number("x-kv-revision");
    }
    // Its first page, and the pin of it, which is made at once where the machine is not too busy.
    let begin = async |at: u64| {
        let first = format!("/v1/kv?prefix={}&limit=1&revision={at}", client.key(""));
        wait_for("a walk to have a pin", async || {
            let page = client.get(&first).await.expect(200).json();
            let leases = client.get("/v1/leases").await.expect(200).json();
            let mut pins = leases.as_array().unwrap().iter();
            let pin = pins.find(|lease| lease["pin"] == at);
            pin.map(|pin| (page, pin["id"].clone())).ok_or(leases)
        })
        .await
    };
    let (walk, own) = begin(revision).await;
    let (_, other) = begin(revision - 1).await;
    let next = format!("/v1/kv?limit=1&cursor={}", walk["cursor"].as_str().unwrap());
    let again = ends_and_goes_on(&client, own, revision, &next).await;
    // Once more; and where it stands there can be no new one by now, but that of the other walk keeps as much.
    client.delete(&format!("/v1/leases/{again}")).await.expect(200);
    let after = client.put("d", "v").await.number("x-kv-revision");
    let compaction = json!({"revision": after});
    client.post("/v1/compact", &compaction).await.expect(200);
    let left_ms = async || {
        let shown = client.get(&format!("/v1/leases/{other}")).await;
        shown.expect(200).json()["remaining_ms"].as_u64().unwrap()
    };
    wait_for("some of its time to be over", async || {
        let left = left_ms().await;
        if left < MOST_MS { Ok(()) } else { Err(left) }
    })
    .await;
    wait_for("it to be renewed", async || {
        let page = client.get(&next).await.expect(200).json();
        assert_eq!(
            (&page["revision"], &page["more"]),
            (&json!(revision), &json!(true))
        );
        let left = left_ms().await;
        if left > MOST_MS { Ok(()) } else { Err(left) }
    })
    .await;
    cluster.stop().await;
}
