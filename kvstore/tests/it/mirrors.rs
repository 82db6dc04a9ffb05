//! Mirrors as the store sees them: who is waited for, what says so, and what happens when one is gone.
//! The mirror here is the test: it says what it has, or falls silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use service::tasks::Tasks;
use tokio::task::JoinHandle;

use crate::harness::{Answer, Client, Cluster, wait_for};

pub(crate) async fn send(client: &Client, method: Method, target: &str, body: Value) -> Answer {
    let request = client.request(method, target).json(&body);
    client.send(request).await
}

pub(crate) async fn put(client: &Client, key: &str, value: &'static str) -> Answer {
    let target = format!("/v1/kv/{key}");
    client
        .send(client.request(Method::PUT, &target).body(value))
        .await
}

pub(crate) async fn announce(client: &Client, on_loss: &str, incarnation: &str) -> Value {
    let body = json!({"mode": "sync", "on_loss": on_loss, "incarnation": incarnation});
    send(client, Method::PUT, "/v1/mirrors/m", body)
        .await
        .expect(200)
        .json()
}

async fn acknowledge(client: &Client, revision: u64) -> Value {
    let body = json!({"revision": revision, "incarnation": "a"});
    send(client, Method::POST, "/v1/mirrors/m/ack", body)
        .await
        .expect(200)
        .json()
}

pub(crate) async fn present(client: &Client) -> u64 {
    let answer = client.get("/v1/status").await.expect(200);
    answer.json()["revision"].as_u64().unwrap()
}

async fn state(client: &Client) -> String {
    let all = client.get("/v1/mirrors").await.expect(200).json();
    all[0]["state"].as_str().unwrap().to_owned()
}

/// Says again and again that it has everything, until it is waited for.
pub(crate) async fn becomes_ok(client: &Client) {
    wait_for("the mirror to be ok", async || {
        let said = acknowledge(client, present(client).await).await;
        (said["state"] == "ok").then_some(()).ok_or(said)
    })
    .await;
}

/// A mirror that lives and gets nothing new, until it is told what it has.
pub(crate) struct Living {
    level: Arc<AtomicU64>,
    saying: JoinHandle<()>,
}

impl Living {
    pub(crate) fn start(client: &Client, level: u64) -> Self {
        let level = Arc::new(AtomicU64::new(level));
        let saying = Tasks::new().spawn("mirror", {
            let (client, level) = (client.clone(), Arc::clone(&level));
            async move {
                loop {
                    let body = json!({"revision": level.load(Ordering::Relaxed), "incarnation": "a"});
                    let request = client.request(Method::POST, "/v1/mirrors/m/ack").json(&body);
                    // A leader may be gone for a moment.
                    let _said = request.send().await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Self { level, saying }
    }

    pub(crate) fn has(&self, revision: u64) {
        self.level.store(revision, Ordering::Relaxed);
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.saying.abort();
    }
}

/// Answers may wait for longer here than the machine is ever busy.
pub(crate) async fn three() -> Cluster {
    Cluster::start_with(3, |config| config.limits.proposal_age_ms_max = 20_000).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_the_mirror_and_so_does_who_would_see_it() {
    let cluster = three().await;
    // Through a follower or the leader, whatever these are.
    let (one, other) = (cluster.client(0), cluster.client(1));
    put(&one, "before", "x").await.expect(200);
    announce(&one, "block", "a").await;
    assert_eq!(state(&one).await, "catching_up", "nobody waits for it yet");
    let free = put(&one, "free", "x").await.expect(200);
    assert_eq!(free.header("x-kv-mirror"), "degraded");
    becomes_ok(&other).await;
    let before = present(&one).await;
    let mirror = Living::start(&one, before);
    let writing = Tasks::new().spawn("write", {
        let one = one.clone();
        async move {
            let request = one
                .request(Method::PUT, "/v1/kv/held")
                .header("idempotency-key", "k")
                .body("v");
            let began = Instant::now();
            (one.send(request).await, began.elapsed())
        }
    });
    // It is applied, as whoever follows can see, and not acknowledged.
    wait_for("the write to be applied", async || {
        let seen = other.get("/v1/kv/held?consistency=local").await;
        (seen.status == 200).then_some(()).ok_or(seen.text())
    })
    .await;
    assert!(!writing.is_finished(), "the mirror does not have it");
    let read = Tasks::new().spawn("read", {
        let other = other.clone();
        async move { other.get("/v1/kv/held").await }
    });
    let range = Tasks::new().spawn("range", {
        let other = other.clone();
        async move { other.get("/v1/kv?prefix=h").await }
    });
    // What the mirror has is shown at once, also beside it.
    let known = other.get("/v1/kv/before").await.expect(200);
    assert!(known.number("x-kv-revision") <= before);
    let revision = other.get("/v1/revision").await.expect(200).json()["revision"]
        .as_u64()
        .unwrap();
    assert_eq!(revision, before, "what was acknowledged, and no more");
    assert!(!writing.is_finished() && !read.is_finished() && !range.is_finished());
    mirror.has(before + 1);
    let (written, took) = writing.await.unwrap();
    assert_eq!(written.expect(200).header("x-kv-mirror"), "ok", "after {took:?}");
    assert_eq!(read.await.unwrap().expect(200).text(), "v");
    assert_eq!(range.await.unwrap().expect(200).json()["count"], 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_degrades_is_left_behind_after_a_second_and_comes_back_by_itself() {
    let cluster = Cluster::start(3).await;
    let one = cluster.client(0);
    announce(&one, "degrade", "a").await;
    becomes_ok(&one).await;
    let began = Instant::now();
    let written = put(&one, "k", "v").await.expect(200);
    assert_eq!(written.header("x-kv-mirror"), "degraded");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(4),
        "{took:?}"
    );
    assert_eq!(state(&one).await, "degraded");
    let began = Instant::now();
    put(&one, "k", "w").await.expect(200);
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "nobody waits for it any more"
    );
    becomes_ok(&one).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_blocks_is_not_left_behind_and_can_be_removed() {
    let cluster = Cluster::start(3).await;
    let one = cluster.client(0);
    announce(&one, "block", "a").await;
    becomes_ok(&one).await;
    let lease = send(&one, Method::POST, "/v1/leases", json!({"ttl_ms": 60_000}))
        .await
        .expect(201)
        .json();
    wait_for("the store to miss the mirror", async || {
        let refused = put(&one, "k", "v").await;
        (refused.status == 503 && refused.code() == "mirror-lost")
            .then_some(())
            .ok_or(refused.text())
    })
    .await;
    let refused = put(&one, "k", "v").await.refused(503, "mirror-lost");
    assert_eq!(refused.header("retry-after"), "1");
    // What is kept alive goes on, and reads of what the mirror has do too.
    let keep = format!("/v1/leases/{}/keepalive", lease["id"]);
    send(&one, Method::POST, &keep, json!({})).await.expect(200);
    assert_eq!(
        state(&one).await,
        "degraded",
        "shown, although nobody goes on without it"
    );
    // Back, it is waited for again, and nothing was written meanwhile.
    becomes_ok(&one).await;
    send(&one, Method::DELETE, "/v1/mirrors/m", json!({}))
        .await
        .expect(200);
    let free = put(&one, "k", "v").await.expect(200);
    assert_eq!(free.header("x-kv-mirror"), "");
    send(&one, Method::DELETE, "/v1/mirrors/m", json!({}))
        .await
        .refused(404, "mirror-not-found");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_mirrors_is_the_leaders_word_and_says_so() {
    let cluster = Cluster::start(3).await;
    let written = put(&cluster.client(0), "k", "v").await.expect(200);
    let at_least = format!("at_least:{}", written.number("x-kv-revision"));
    for node in 0..3 {
        let client = cluster.client(node);
        for (asked, given) in [
            ("linearizable", "linearizable"),
            ("local", "linearizable"),
            ("bounded:60000", "linearizable"),
            (at_least.as_str(), at_least.as_str()),
        ] {
            let told = client.get(&format!("/v1/mirrors?consistency={asked}")).await;
            assert_eq!(told.expect(200).header("x-kv-consistency"), given, "{asked}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_made_anew_is_not_taken_for_the_old() {
    let cluster = Cluster::start(1).await;
    let one = cluster.client(0);
    announce(&one, "degrade", "a").await;
    becomes_ok(&one).await;
    announce(&one, "degrade", "b").await;
    assert_eq!(state(&one).await, "catching_up");
    let old = send(
        &one,
        Method::POST,
        "/v1/mirrors/m/ack",
        json!({"revision": 0, "incarnation": "a"}),
    )
    .await;
    old.refused(409, "conflict");
    let future = json!({"revision": 1_000_000, "incarnation": "b"});
    send(&one, Method::POST, "/v1/mirrors/m/ack", future)
        .await
        .refused(422, "future-revision");
    let body = json!({"mode": "often", "on_loss": 7});
    let faults = send(&one, Method::PUT, "/v1/mirrors/m", body)
        .await
        .refused(422, "invalid-request");
    assert_eq!(faults.pointers(), ["/mode", "/on_loss"]);
    // Who blocks rather than loses waits for the new one too, from the start.
    announce(&one, "block", "b").await;
    let said = send(
        &one,
        Method::POST,
        "/v1/mirrors/m/ack",
        json!({"revision": present(&one).await, "incarnation": "b"}),
    )
    .await;
    said.expect(200);
    wait_for("it to be ok", async || {
        let body = json!({"revision": present(&one).await, "incarnation": "b"});
        let said = send(&one, Method::POST, "/v1/mirrors/m/ack", body).await.json();
        (said["state"] == "ok").then_some(()).ok_or(said)
    })
    .await;
    announce(&one, "block", "c").await;
    // The new database was not heard yet, and nobody goes on without it.
    put(&one, "k", "v").await.refused(503, "mirror-lost");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_may_speaks_for_a_mirror() {
    let cluster = Cluster::start(1).await;
    let root = cluster.client(0);
    let token = |name: &str| cluster.secrets().token(name).unwrap().expose().to_owned();
    let shop = root.with_token(&token("petstore"));
    let body = json!({"mode": "sync"});
    send(&shop, Method::PUT, "/v1/mirrors/m", body.clone())
        .await
        .refused(403, "forbidden");
    let mirror = root.with_token(&token("mirror"));
    send(&mirror, Method::PUT, "/v1/mirrors/m", body)
        .await
        .expect(200);
    send(&shop, Method::POST, "/v1/mirrors/m/ack", json!({"revision": 0}))
        .await
        .refused(403, "forbidden");
    send(&shop, Method::DELETE, "/v1/mirrors/m", json!({}))
        .await
        .refused(403, "forbidden");
    send(&mirror, Method::POST, "/v1/mirrors/m/ack", json!({"revision": 0}))
        .await
        .expect(200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_removal_does_not_remove_what_was_announced_since() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let keyed = async |method: Method, key: &str| {
        let request = client.request(method, "/v1/mirrors/m");
        let request = request.header("idempotency-key", key);
        client.send(request.json(&json!({"mode": "async"}))).await
    };
    let replayed = |answer: Answer| answer.header("idempotent-replayed") == "true";
    assert!(!replayed(keyed(Method::PUT, "first").await.expect(200)));
    assert!(!replayed(keyed(Method::DELETE, "remove").await.expect(200)));
    assert!(!replayed(keyed(Method::PUT, "second").await.expect(200)));
    assert!(replayed(keyed(Method::DELETE, "remove").await.expect(200)));
    let all = client.get("/v1/mirrors").await.expect(200).json();
    assert_eq!(all[0]["name"], "m", "it is still there");
    keyed(Method::DELETE, "again").await.expect(200);
    let long_ago = keyed(Method::PUT, "second").await;
    long_ago.refused(404, "mirror-not-found");
    keyed(Method::PUT, "remove")
        .await
        .refused(422, "idempotency-key-reused");
    cluster.stop().await;
}
