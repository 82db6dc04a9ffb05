//! The near cache never shows what is older than it says, and asks the store when it cannot know.

use crate::canned::{Canned, Reply, ok};
use bytes::Bytes;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::{Cached, Freshness, NearCache};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

fn row(key: &str, value: &str, revision: u64) -> Value {
    json!({"key": key, "value": value, "create_revision": 1, "mod_revision": revision, "version": 1, "lease": 9})
}

fn change(key: &str, value: &str, revision: u64) -> String {
    format!(
        "event: put\ndata: {}\nid: {revision}\n\n",
        row(key, value, revision)
    )
}

/// A store that the test turns by hand: its page, its newest revision, and what its watch says.
#[derive(Clone, Default)]
struct Store {
    page: Arc<Mutex<Value>>,
    revision: Arc<AtomicU64>,
    watch: Arc<Mutex<Option<mpsc::Sender<Bytes>>>>,
    cluster: Arc<Mutex<String>>,
}

impl Store {
    async fn start(revision: u64, rows: Vec<Value>) -> (Self, Canned) {
        let store = Self::default();
        store.set(revision, rows);
        let state = store.clone();
        let server = Canned::start(move |seen| state.answer(&seen.target)).await;
        (store, server)
    }

    fn set(&self, revision: u64, rows: Vec<Value>) {
        self.revision.store(revision, Ordering::SeqCst);
        *self.page.lock().unwrap() =
            json!({"revision": revision, "count": rows.len(), "kvs": rows, "more": false});
    }

    fn answer(&self, target: &str) -> Reply {
        let revision = self.revision.load(Ordering::SeqCst);
        if target == "/v1/revision" {
            ok(json!({"revision": revision}))
        } else if target.starts_with("/v1/watch") {
            let (tx, rx) = mpsc::channel(16);
            *self.watch.lock().unwrap() = Some(tx);
            Reply::StreamOf(self.cluster.lock().unwrap().clone(), rx)
        } else if target.starts_with("/v1/kv/") {
            let headers = vec![
                ("etag", format!("\"{revision}\"")),
                ("x-kv-revision", revision.to_string()),
            ];
            Reply::Answer(200, headers, "from the store".into())
        } else {
            ok(self.page.lock().unwrap().clone())
        }
    }

    /// Says it on the watch, once there is one.
    async fn say(&self, text: String) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        loop {
            let watch = self.watch.lock().unwrap().clone();
            if let Some(watch) = watch
                && watch.send(text.clone().into()).await.is_ok()
            {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody watches");
            tokio::task::yield_now().await;
        }
    }
}

fn text(cached: &Cached<Option<Arc<KeyValue>>>) -> (String, u64, bool) {
    let value = cached.value.as_ref().map_or("none".into(), |kv| kv.bytes());
    (
        String::from_utf8(value.to_vec()).unwrap(),
        cached.revision,
        cached.hit,
    )
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(5), future)
        .await
        .expect("it takes too long")
}

#[tokio::test]
async fn it_follows_the_store() {
    let (store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    let cache = NearCache::open(&server.client(), ["p/"]).await.unwrap();
    let get = |key, freshness| {
        let cache = &cache;
        async move { text(&cache.get(key, freshness).await.unwrap()) }
    };
    assert_eq!(get("p/a", Freshness::Cached).await, ("1".into(), 5, true));
    assert_eq!(get("p/b", Freshness::Cached).await, ("none".into(), 5, true));
    assert_eq!(get("p/a", Freshness::Linearizable).await, ("1".into(), 5, true));

    store.revision.store(7, Ordering::SeqCst);
    let delete = "event: delete\ndata: {\"key\":\"p/a\",\"mod_revision\":7,\"version\":0}\nid: 7\n\n";
    store
        .say([change("p/b", "2", 6), delete.to_owned()].concat())
        .await;
    within(cache.wait_for(7)).await;
    assert_eq!(
        get("p/a", Freshness::Linearizable).await,
        ("none".into(), 7, true)
    );
    assert_eq!(get("p/b", Freshness::AtLeast(6)).await, ("2".into(), 7, true));
    let range = cache.range("p/", Freshness::Cached).await.unwrap();
    assert_eq!(
        (range.value.len(), range.value[0].lease, range.revision),
        (1, 0, 7)
    );
    assert_eq!(cache.revision(), 7);
    assert!(cache.get("q", Freshness::Cached).await.is_err());
}

#[tokio::test]
async fn a_cache_that_is_behind_asks_the_store() {
    let (store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    let cache = NearCache::open(&server.client(), ["p/"]).await.unwrap();
    store.revision.store(9, Ordering::SeqCst);
    let fresh = cache.get("p/a", Freshness::Linearizable).await.unwrap();
    assert_eq!(text(&fresh), ("from the store".into(), 9, false));
    let cached = cache.get("p/a", Freshness::Cached).await.unwrap();
    assert_eq!(text(&cached), ("1".into(), 5, true));
    // A write elsewhere moves the cache on by progress alone.
    store
        .say("event: progress\ndata: {\"revision\":9}\n\n".to_owned())
        .await;
    within(cache.wait_for(9)).await;
    let fresh = cache.get("p/a", Freshness::Linearizable).await.unwrap();
    assert_eq!(text(&fresh), ("1".into(), 9, true));
}

#[tokio::test]
async fn after_compaction_it_loads_anew_and_never_goes_back() {
    let (store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    let cache = NearCache::open(&server.client(), ["p/"]).await.unwrap();
    store.set(20, vec![row("p/a", "2", 19)]);
    store
        .say("event: compacted\ndata: {\"compacted_revision\":12}\n\n".to_owned())
        .await;
    within(cache.wait_for(20)).await;
    let cached = cache.get("p/a", Freshness::Cached).await.unwrap();
    assert_eq!(text(&cached), ("2".into(), 20, true));
    let watched: Vec<_> = server
        .lines()
        .into_iter()
        .filter(|line| line.contains("/v1/watch"))
        .collect();
    within(async {
        while !server
            .lines()
            .contains(&"GET /v1/watch?prefix=p%2F&from=21&progress_ms=3".to_owned())
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(watched[0], "GET /v1/watch?prefix=p%2F&from=6&progress_ms=3");

    // A store put back from a backup is older than what was shown: only the store itself may answer then.
    store.set(3, vec![row("p/a", "0", 2)]);
    store.say("event: compacted\ndata: {}\n\n".to_owned()).await;
    within(async {
        while cache.get("p/a", Freshness::Cached).await.unwrap().hit {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_cluster_at_the_same_addresses_is_not_taken_for_the_one_before() {
    let (store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    "one".clone_into(&mut store.cluster.lock().unwrap());
    let cache = NearCache::open(&server.client(), ["p/"]).await.unwrap();
    store.say(change("p/a", "2", 6)).await;
    within(cache.wait_for(6)).await;
    // It is younger, so that it says nothing of its own accord to who wants what comes after revision 6.
    store.set(3, vec![row("p/a", "other", 2)]);
    "other".clone_into(&mut store.cluster.lock().unwrap());
    *store.watch.lock().unwrap() = None;
    within(async {
        while cache.get("p/a", Freshness::Cached).await.unwrap().hit {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_does_not_fit_is_left_to_the_store() {
    let big = "x".repeat(4000);
    let (store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    let cache = NearCache::open_within(&server.client(), ["p/"], 2000)
        .await
        .unwrap();
    assert!(cache.get("p/a", Freshness::Cached).await.unwrap().hit);
    store.revision.store(6, Ordering::SeqCst);
    store.say(change("p/a", &big, 6)).await;
    within(cache.wait_for(6)).await;
    let cached = cache.get("p/a", Freshness::Cached).await.unwrap();
    assert_eq!(text(&cached), ("from the store".into(), 6, false));
    within(cache.wait_for(1000)).await;

    let (_, server) = Store::start(5, vec![row("p/a", &big, 4)]).await;
    let cache = NearCache::open_within(&server.client(), ["p/"], 2000)
        .await
        .unwrap();
    assert!(!cache.get("p/a", Freshness::Cached).await.unwrap().hit);
    assert_eq!(cache.range("p/", Freshness::Cached).await.unwrap().value.len(), 1);
}

#[tokio::test]
async fn many_linearizable_reads_share_requests() {
    let (_store, server) = Store::start(5, vec![row("p/a", "1", 4)]).await;
    let cache = NearCache::open(&server.client(), ["p/"]).await.unwrap();
    let reads = (0..200).map(|_| cache.get("p/a", Freshness::Linearizable));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().hit));
    let asked = server
        .lines()
        .iter()
        .filter(|line| line.ends_with("/v1/revision"))
        .count();
    assert!((1..=20).contains(&asked), "{asked} requests for 200 reads");
}

#[tokio::test]
async fn the_last_clone_ends_the_watches() {
    let (_store, server) = Store::start(5, vec![]).await;
    let client = server.client();
    let cache = NearCache::open(&client, ["p/", "q/"]).await.unwrap();
    drop(cache.clone());
    assert!(cache.get("q/a", Freshness::Linearizable).await.unwrap().hit);
    drop(cache);
    assert!(client.tasks().drain(Duration::from_secs(5)).await);
}
