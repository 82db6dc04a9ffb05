//! Limits of `cluster.toml` that are not those of one kind of request.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use service::config::REQUEST_BYTES_MAX;

use crate::events::Events;
use crate::harness::{Client, Cluster, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_nested_as_deep_as_is_configured() {
    let cluster = Cluster::start_with(1, |config| config.limits.json_depth_max = 4).await;
    let client = cluster.client(0);
    let put = json!({"then": [{"put": {"key": client.key("k"), "value": "v"}}]});
    client.txn(&put).await.expect(200);
    let deeper = json!({"then": [{"put": {"key": client.key("k"), "value": "v", "surprise": []}}]});
    let refused = client.txn(&deeper).await.refused(400, "malformed-json");
    assert!(
        refused.text().contains("deeper than 4 levels"),
        "{}",
        refused.text()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_deletes_as_many_keys_as_are_configured() {
    let cluster = Cluster::start_with(1, |config| config.limits.delete_keys_max = 3).await;
    let client = cluster.client(0);
    for name in ["a/1", "a/2", "b/1", "b/2"] {
        client.put(name, "v").await;
    }
    let (all, a, b) = (client.key(""), client.key("a/"), client.key("b/"));
    let delete = async |prefix: &str, once: &str| {
        let request = client.request(Method::DELETE, &format!("/v1/kv?prefix={prefix}"));
        client.send(request.header("idempotency-key", once)).await
    };
    let refused = delete(&all, "all").await.refused(413, "too-large");
    assert!(refused.text().contains("more than 3 keys"), "{}", refused.text());
    // Also where two are too many only together.
    let both = json!({"then": [{"delete": {"prefix": a}}, {"delete": {"prefix": b}}]});
    client.txn(&both).await.refused(413, "too-large");
    // Of two branches only one is run.
    let either = json!({
        "if": [{"key": client.key("c"), "target": "version", "op": "==", "operand": 0}],
        "then": [{"delete": {"prefix": client.key("c")}}, {"delete": {"prefix": b}}],
        "else": [{"delete": {"prefix": a}}],
    });
    let deleted = client.txn(&either).await.expect(200).json();
    assert_eq!(deleted["results"][1]["delete"]["deleted"], 2);
    let of_a = delete(&a, "a").await.expect(200).json();
    assert_eq!(of_a["deleted"], 2);
    // What was done is told again, however many there are by now.
    for name in ["a/1", "a/2", "a/3", "a/4"] {
        client.put(name, "v").await;
    }
    let again = delete(&a, "a").await.expect(200);
    assert_eq!(
        (again.header("idempotent-replayed"), again.json()),
        ("true", of_a)
    );
    delete(&a, "another").await.refused(413, "too-large");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_that_may_be_configured_reaches_all_nodes() {
    let cluster = Cluster::start_with(3, |config| {
        config.limits.value_bytes_max = REQUEST_BYTES_MAX;
        config.limits.request_bytes_max = REQUEST_BYTES_MAX;
        config.limits.proposals_bytes_max = REQUEST_BYTES_MAX;
        // Other tests may keep the machine busy.
        config.limits.proposal_age_ms_max = 20_000;
        config.limits.request_ms_max = 20_000;
    })
    .await;
    // Of two nodes, one at least does not lead, and sends it to the one that does.
    let first = cluster.client(0);
    let (second, third) = (first.elsewhere(), first.elsewhere().elsewhere());
    for through in [&first, &second] {
        through.put("large", vec![b'x'; REQUEST_BYTES_MAX]).await;
    }
    let read = third.read("large").await.expect(200);
    assert_eq!(
        (read.number("x-kv-version"), read.body.len()),
        (2, REQUEST_BYTES_MAX)
    );
    cluster.stop().await;
}

async fn grant(client: &Client, once: &str) -> crate::harness::Answer {
    let request = client.request(Method::POST, "/v1/leases");
    let request = request.header("idempotency-key", once);
    client.send(request.json(&json!({"ttl_ms": 60_000}))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_as_many_as_are_configured() {
    const LEASES_MAX: usize = 16;
    let cluster = Cluster::start_with(1, |config| config.limits.leases_max = LEASES_MAX).await;
    let client = cluster.client(0);
    let greedy = client.token("greedy", &[]).await;
    // The last quarter is not for who has more than one.
    let mut granted = Vec::new();
    for n in 0..LEASES_MAX / 4 * 3 {
        let answer = grant(&greedy, &client.key(&n.to_string())).await;
        granted.push(answer.expect(201).json());
    }
    grant(&greedy, "more").await.refused(503, "overloaded");
    for n in 0..LEASES_MAX / 4 {
        let once = client.key(&n.to_string());
        grant(&client, &once).await.expect(201);
    }
    let refused = grant(&client, &client.key("more"))
        .await
        .refused(503, "overloaded");
    assert!(!refused.header("retry-after").is_empty());
    // What was granted is told again, and goes on.
    let again = grant(&greedy, &client.key("3")).await.expect(201);
    assert_eq!(
        (again.header("idempotent-replayed"), again.json()),
        ("true", granted[3].clone())
    );
    let id = &granted[0]["id"];
    let keepalive = format!("/v1/leases/{id}/keepalive");
    greedy.post(&keepalive, &json!({})).await.expect(200);
    // A walk over pages goes without a pin.
    for name in ["a", "b"] {
        client.put(name, "v").await;
    }
    let page = client
        .get(&format!("/v1/kv?prefix={}&limit=1", client.key("")))
        .await;
    let cursor = page.expect(200).json()["cursor"].as_str().unwrap().to_owned();
    let next = client.get(&format!("/v1/kv?cursor={cursor}")).await.expect(200);
    assert_eq!(next.json()["kvs"][0]["key"], client.key("b"));

    client.delete(&format!("/v1/leases/{id}")).await.expect(200);
    grant(&client, &client.key("more")).await.expect(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walks_that_go_no_further_leave_room_for_leases() {
    const LEASES_MAX: usize = 16;
    let cluster = Cluster::start_with(1, |config| config.limits.leases_max = LEASES_MAX).await;
    let client = cluster.client(0);
    let mut revisions = Vec::new();
    for n in 0..30 {
        let put = client.put(&(n % 3).to_string(), "v").await;
        revisions.push(put.number("x-kv-revision"));
    }
    let first = format!("/v1/kv?prefix={}&limit=1", client.key(""));
    for revision in revisions.iter().skip(1).rev() {
        for target in [&first, &format!("{first}&revision={revision}")] {
            let page = client.get(target).await.expect(200).json();
            assert!(page["cursor"].is_string(), "{page}");
        }
    }
    grant(&client, &client.key("another")).await.expect(201);
    let leases = client.get("/v1/leases").await.expect(200).json();
    let leases = leases.as_array().unwrap().iter();
    let pins = leases.filter(|lease| !lease["pin"].is_null()).count();
    assert!((1..=LEASES_MAX / 4).contains(&pins), "{pins}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_cannot_take_all_the_room_for_pins() {
    let cluster = Cluster::start_with(1, |config| config.limits.leases_max = 16).await;
    let root = cluster.client(0);
    let revision = root.put("k", "v").await.number("x-kv-revision");
    let greedy = &root.token("greedy", &[]).await;
    let modest = &root.token("modest", &[]).await;
    let pin = json!({"ttl_ms": 60_000, "pin": revision});
    let pin = async |client: &Client| client.post("/v1/leases", &pin).await;
    // A quarter of all leases may be pins, and of those the last quarter is not for who has more than one.
    for _ in 0..3 {
        pin(greedy).await.expect(201);
    }
    pin(greedy).await.refused(503, "overloaded");
    pin(modest).await.expect(201);
    pin(&root).await.refused(503, "overloaded");
    grant(greedy, "no-pin").await.expect(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_cannot_take_all_places_of_watches() {
    const WATCHERS_MAX: usize = 8;
    let cluster = Cluster::start_with(1, |config| config.limits.watchers_max = WATCHERS_MAX).await;
    let root = cluster.client(0);
    let modest = &root.token("modest", &[("", "read")]).await;
    let mut open = Vec::new();
    for n in 0..WATCHERS_MAX {
        // Whoever has more than a quarter of them leaves the last one to others.
        let client = if n < 6 { &root } else { modest };
        open.push(Events::of_space(client, "").await);
        if n >= 5 {
            let refused = root.get("/v1/watch").await;
            refused.refused(503, "too-many-watchers");
        }
    }
    let refused = modest
        .get(&format!("/v1/watch?prefix={}", root.key("")))
        .await
        .refused(503, "too-many-watchers");
    assert!(refused.text().contains("8 at most"), "{}", refused.text());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_kept_as_long_as_there_is_room_for_them() {
    const BYTES_MAX: usize = 64 << 10;
    let cluster = Cluster::start_with(1, |config| config.limits.answers_bytes_max = BYTES_MAX).await;
    let client = cluster.client(0);
    let put = async |key: &str| {
        let request = client.request(Method::PUT, &client.path("k")).body("v");
        let request = request.header("idempotency-ttl", "60");
        client.send(request.header("idempotency-key", key)).await
    };
    let mut full = None;
    for n in 0..BYTES_MAX {
        let answer = put(&format!("{n:0>200}")).await;
        if answer.status != 200 {
            full = Some((n, answer));
            break;
        }
    }
    let (kept, refused) = full.expect("no table is without a bound");
    assert!(kept * 200 < BYTES_MAX && kept > 50, "{kept} answers were kept");
    let refused = refused.refused(503, "overloaded");
    assert!(!refused.header("retry-after").is_empty());
    let version = client.read("k").await.number("x-kv-version");
    assert_eq!(version, kept as u64, "what was refused was not written");
    // Those that are kept are told, and who needs none to be kept may write.
    let again = put(&format!("{:0>200}", 0)).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    client.put("k", "v").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_cannot_take_all_the_room_for_answers() {
    const BYTES_MAX: usize = 64 << 10;
    let cluster = Cluster::start_with(1, |config| config.limits.answers_bytes_max = BYTES_MAX).await;
    let root = cluster.client(0);
    root.put("large", "v".repeat(1000)).await;
    let greedy = &root.token("greedy", &[("", "read")]).await;
    let modest = root.token("modest", &[("", "write")]).await;
    let get = json!({"then": [{"get": {"key": root.key("large")}}]});
    let read = |n: usize| {
        let request = greedy.request(Method::POST, "/v1/txn").json(&get);
        let request = request.header("idempotency-ttl", "86400");
        let request = request.header("idempotency-key", n.to_string());
        async move { greedy.send(request).await }
    };
    let answers = join_all((0..80).map(read)).await;
    let kept: Vec<usize> = (0..80).filter(|n| answers[*n].status == 200).collect();
    // Three quarters of the room hold so many, and the whole would hold more.
    assert!((35..50).contains(&kept.len()), "{} answers were kept", kept.len());
    for n in (0..80).filter(|n| !kept.contains(n)) {
        read(n).await.refused(503, "overloaded");
    }
    for (client, key) in [(&root, "of-root"), (&modest, "of-modest")] {
        let put = async || {
            let request = client.request(Method::PUT, &client.path(key)).body("v");
            client.send(request.header("idempotency-key", key)).await
        };
        put().await.expect(200);
        let again = put().await.expect(200);
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    // What it was told already it is told again.
    let again = read(kept[0]).await.expect(200);
    assert_eq!(again.header("idempotent-replayed"), "true");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_without_room_for_a_pin_is_kept_by_that_of_its_caller() {
    let cluster = Cluster::start_with(1, |config| config.limits.leases_max = 16).await;
    let client = cluster.client(0);
    let other = client.token("other", &[]).await;
    for n in 0..16 {
        let owner = if n < 12 { &other } else { &client };
        grant(owner, &client.key(&n.to_string())).await.expect(201);
    }
    let walk = async |name: &str| {
        for n in 0..3 {
            client.put(&format!("{name}/{n}"), "old").await;
        }
        let first = client
            .get(&format!("/v1/kv?prefix={}&limit=1", client.key(name)))
            .await;
        first.expect(200).json()
    };
    let (lost, kept) = (walk("lost").await, walk("kept").await);
    let leases = client.get("/v1/leases").await.expect(200).json();
    assert!(
        leases
            .as_array()
            .unwrap()
            .iter()
            .all(|lease| lease["pin"].is_null())
    );
    client
        .delete(&format!("/v1/leases/{}", leases[0]["id"]))
        .await
        .expect(200);
    let pin = json!({"ttl_ms": 60_000, "pin": kept["revision"]});
    client.post("/v1/leases", &pin).await.expect(201);
    let present = client.put("kept/1", "new").await.number("x-kv-revision");
    client
        .post("/v1/compact", &json!({"revision": present}))
        .await
        .expect(200);
    let go_on = async |page: &Value| {
        let cursor = page["cursor"].as_str().unwrap();
        client.get(&format!("/v1/kv?cursor={cursor}")).await
    };
    let rest = go_on(&kept).await.expect(200).json();
    assert_eq!(
        (&rest["kvs"][0]["value"], &rest["more"]),
        (&json!("old"), &json!(false))
    );
    go_on(&lost).await.refused(410, "compacted");
    cluster.stop().await;
}

/// Keys that take far longer to hash than a request may. Answers the revision they are of.
async fn fill(client: &Client) -> u64 {
    let value = "v".repeat(100);
    for part in 0..400 {
        let puts =
            (0..128).map(|n| json!({"put": {"key": client.key(&format!("{part}/{n}")), "value": value}}));
        let txn = json!({"then": puts.collect::<Vec<Value>>()});
        // The body may be late too.
        wait_for("keys to be written", async || {
            let answer = client.txn(&txn).await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    client.revision().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_takes_too_long_is_given_up() {
    let cluster = Cluster::start_with(1, |config| config.limits.request_ms_max = 10).await;
    let client = cluster.client(0);
    let past = fill(&client).await;
    client.put("later", "").await;
    wait_for("a read to take too long", async || {
        let answer = client.get(&format!("/v1/hash?revision={past}")).await;
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(answer.text())
        }
    })
    .await
    .refused(503, "timeout");
    client.read("later").await.expect(200);
    cluster.stop().await;
}
