//! The near cache while its node dies, history is given up under it, and connections break.
//! Invariant: an answer is never older than the revision stated with it, that revision never goes back, and a
//! linearizable answer sees everything acknowledged before it was asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::{Cached, Freshness, KvClient, NearCache};
use service::tasks::Tasks;

use crate::harness::{Cluster, SOON, wait_until};
use crate::load::say;

const KEYS: usize = 3;

/// Everything that was acknowledged: for each key, number by revision.
#[derive(Default)]
struct Written {
    by_key: Mutex<BTreeMap<String, BTreeMap<u64, u64>>>,
    acknowledged: AtomicU64,
}

/// What a reader was told.
struct Told {
    key: String,
    stated: u64,
    /// Revision of the value shown; 0 for no value.
    shown: u64,
    /// The newest revision of this key that had been acknowledged before the read, if it asked for that.
    due: u64,
    hit: bool,
}

impl Written {
    async fn write(self: Arc<Self>, client: KvClient, tasks: Tasks) {
        for n in 0_u64.. {
            let key = format!("near/{}", n % KEYS as u64);
            // Repeated with one key until the store has said where it stands.
            let once = client.with_idempotency_key(&format!("near-{n}")).unwrap();
            let revision = loop {
                match once.put(&key, n.to_string()).await {
                    Ok(put) => break put.revision,
                    Err(error) => say(&format!("{key} again: {error:?}")),
                }
            };
            self.by_key
                .lock()
                .unwrap()
                .entry(key)
                .or_default()
                .insert(revision, n);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(3)) => {}
                () = tasks.stopping() => return,
            }
        }
    }

    fn newest(&self, key: &str) -> u64 {
        let written = self.by_key.lock().unwrap();
        written
            .get(key)
            .and_then(|revisions| revisions.last_key_value())
            .map_or(0, |(revision, _)| *revision)
    }

    fn judge(&self, told: &[Told]) {
        let written = self.by_key.lock().unwrap();
        let mut stated: BTreeMap<&str, u64> = BTreeMap::new();
        for told in told {
            let last = stated.entry(&told.key).or_default();
            assert!(
                !told.hit || told.stated >= *last,
                "the stated revision of {} went from {last} back to {}",
                told.key,
                told.stated
            );
            if told.hit {
                *last = told.stated;
            }
            let newest = written.get(&told.key).and_then(|revisions| {
                let upto = revisions.range(..=told.stated).next_back();
                upto.map(|(revision, _)| *revision)
            });
            assert!(
                newest.unwrap_or(0) <= told.shown,
                "{} of revision {} was shown as of revision {}, when revision {newest:?} was there",
                told.key,
                told.shown,
                told.stated
            );
            assert!(
                told.due <= told.shown,
                "{}: {} was due, {} was shown",
                told.key,
                told.due,
                told.shown
            );
        }
    }
}

async fn read(cache: NearCache, written: Arc<Written>, told: Arc<Mutex<Vec<Told>>>, tasks: Tasks) {
    for n in 0_usize.. {
        let key = format!("near/{}", n % KEYS);
        let freshness = if n.is_multiple_of(5) {
            Freshness::Linearizable
        } else {
            Freshness::Cached
        };
        let due = if freshness == Freshness::Linearizable {
            written.newest(&key)
        } else {
            0
        };
        let answer: Result<Cached<Option<Arc<KeyValue>>>, _> = cache.get(&key, freshness).await;
        // Without a leader the store cannot answer what the cache may not.
        if let Ok(answer) = answer {
            let shown = answer.value.map_or(0, |kv| kv.mod_revision);
            told.lock().unwrap().push(Told {
                key,
                stated: answer.revision,
                shown,
                due,
                hit: answer.hit,
            });
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
            () = tasks.stopping() => return,
        }
    }
}

async fn more_is_written(written: &Written) {
    let before = written.acknowledged.load(Ordering::Relaxed);
    wait_until("more is written", SOON, async || {
        let now = written.acknowledged.load(Ordering::Relaxed);
        (now >= before + 100)
            .then_some(())
            .ok_or_else(|| format!("{before} .. {now}"))
    })
    .await;
}

#[tokio::test]
async fn a_near_cache_is_never_older_than_it_says() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().with_deadline(Duration::from_secs(15));
    client.put("near/0", "first").await.unwrap();
    let tasks = Tasks::new();
    let (written, told) = (Arc::new(Written::default()), Arc::default());
    let cache = NearCache::open(&cluster.client(), ["near/"]).await.unwrap();
    tasks.spawn(
        "writer",
        Arc::clone(&written).write(client.clone(), tasks.clone()),
    );
    tasks.spawn(
        "reader",
        read(
            cache.clone(),
            Arc::clone(&written),
            Arc::clone(&told),
            tasks.clone(),
        ),
    );
    more_is_written(&written).await;
    // Every node dies once, so also the one that the cache watches, and the one that leads.
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name).await;
        more_is_written(&written).await;
        let present = client.revision().await.unwrap();
        client.compact(present - 20).await.unwrap();
        cluster.start_node(name).await;
        cluster.wait_for_state(name, "running").await;
        more_is_written(&written).await;
    }
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    more_is_written(&written).await;
    // It has found its way back to a watch: answers come from it again, and are up to date.
    let last = client.revision().await.unwrap();
    wait_until("the cache follows again", SOON, async || {
        let answer = cache.get("near/1", Freshness::Cached).await;
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        (answer.hit && answer.revision >= last)
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    })
    .await;
    tasks.stop();
    assert!(tasks.drain(Duration::from_secs(20)).await);
    let told = told.lock().unwrap();
    written.judge(&told);
    let hits = told.iter().filter(|told| told.hit).count();
    say(&format!(
        "{} reads, {hits} of them answered by the cache",
        told.len()
    ));
    assert!(
        hits * 2 > told.len(),
        "the cache hardly ever answered: {hits} of {}",
        told.len()
    );
}
