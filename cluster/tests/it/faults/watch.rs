//! Watches that lose their node again and again.
//! Invariant: every change once and in order, or a clear word that it is no longer kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvstore_client::{Error, EventKind, WatchEvent, WatchRequest};
use service::tasks::Tasks;

use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, metric, say, verify};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
const WATCHES: usize = 3;

type Seen = Arc<Mutex<Vec<WatchEvent>>>;

/// Follows `load/` from `from` on, until it is stopped.
fn follow(cluster: &Cluster, tasks: &Tasks, first: usize, from: u64) -> Seen {
    let seen = Seen::default();
    let mut addresses = cluster.config.client_addresses();
    addresses.rotate_left(first % ALL.len());
    let client = cluster.client_of(addresses);
    let (collected, tasks_within) = (Arc::clone(&seen), tasks.clone());
    tasks.spawn("watch", async move {
        let mut watch = client
            .watch(WatchRequest::prefix("load/").from(from))
            .await
            .unwrap();
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = tasks_within.stopping() => return,
            };
            let mut collected = collected.lock().unwrap();
            collected.push(event.unwrap());
        }
    });
    seen
}

async fn watchers(cluster: &Cluster, name: &str) -> u64 {
    metric(cluster, name, "kv_watchers").await
}

/// The node that serves most watches.
async fn busiest(cluster: &Cluster) -> &'static str {
    let mut served = Vec::new();
    for name in ALL {
        served.push((watchers(cluster, name).await, name));
    }
    let (most, name) = *served.iter().max().unwrap();
    assert!(most > 0, "nobody watches: {served:?}");
    name
}

/// What a watch must have shown: revision by key and version.
fn check(seen: &[WatchEvent], expected: &BTreeMap<String, u64>) {
    let mut shown: BTreeMap<&str, Vec<&WatchEvent>> = BTreeMap::new();
    let mut revision = 0;
    for event in seen {
        assert!(
            event.revision >= revision,
            "{event:?} comes after revision {revision}"
        );
        assert_eq!(event.kind, EventKind::Put);
        revision = event.revision;
        shown.entry(&event.change.key).or_default().push(event);
    }
    for (key, version) in expected {
        let events = shown.remove(key.as_str()).unwrap_or_default();
        let versions: Vec<u64> = events.iter().map(|event| event.change.version).collect();
        let all: Vec<u64> = (1..=*version).collect();
        assert_eq!(versions, all, "the changes of {key}");
    }
    assert!(
        shown.is_empty(),
        "changes of keys that nobody put: {:?}",
        shown.keys()
    );
}

#[tokio::test]
async fn every_change_is_seen_once_and_in_order_whatever_node_dies() {
    let cluster = Cluster::start(3).await;
    let from = cluster.client().revision().await.unwrap() + 1;
    let tasks = Tasks::new();
    let seen: Vec<Seen> = (0..WATCHES).map(|n| follow(&cluster, &tasks, n, from)).collect();
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    for round in 0..3 {
        // The last time it is the leader, whoever watches there.
        let leader = cluster.leader().await;
        let victim = if round == 2 {
            leader
        } else {
            busiest(&cluster).await.to_owned()
        };
        let before = watchers(&cluster, &victim).await;
        say(&format!("{victim} is killed; it served {before} watches"));
        cluster.kill(&victim).await;
        load.progress(Instant::now(), 200).await;
        cluster.start_node(&victim).await;
        cluster.wait_for_state(&victim, "running").await;
    }
    let book = load.stop().await;
    let scan = cluster.client().scan("load/").await.unwrap();
    let expected: BTreeMap<String, u64> = scan.kvs.iter().map(|kv| (kv.key.clone(), kv.version)).collect();
    let changes = usize::try_from(expected.values().sum::<u64>()).unwrap();
    for seen in &seen {
        wait_until(
            "the watch has seen everything",
            Duration::from_secs(20),
            async || {
                let count = seen.lock().unwrap().len();
                (count >= changes)
                    .then_some(())
                    .ok_or_else(|| format!("{count} of {changes}"))
            },
        )
        .await;
        check(&seen.lock().unwrap(), &expected);
    }
    tasks.stop();
    assert!(tasks.drain(Duration::from_secs(5)).await);
    verify(&cluster, &ALL, book).await;
}

#[tokio::test]
async fn a_watch_is_told_that_what_it_missed_is_compacted() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let first = client.put("load/a", "1").await.unwrap().revision;
    // This one is up to date when history is given up, and must not notice.
    let tasks = Tasks::new();
    let seen = follow(&cluster, &tasks, 0, first);
    for n in 2..=50 {
        client.put("load/a", n.to_string()).await.unwrap();
    }
    let last = client.revision().await.unwrap();
    wait_until(
        "the watch has seen everything",
        Duration::from_secs(20),
        async || {
            let count = seen.lock().unwrap().len();
            (count == 50).then_some(()).ok_or_else(|| format!("{count}"))
        },
    )
    .await;
    client.compact(last).await.unwrap();
    for name in ALL {
        let late = cluster.client_of(vec![cluster.address(name).to_owned()]);
        // The node may yet have to hear of it, and would then show the whole history.
        late.revision().await.unwrap();
        let refused = late.watch(WatchRequest::prefix("load/").from(first)).await;
        assert!(
            matches!(refused, Err(Error::Compacted { .. })),
            "{name}: {refused:?}"
        );
        late.watch(WatchRequest::prefix("load/").from(last + 1))
            .await
            .unwrap();
    }
    let victim = busiest(&cluster).await;
    cluster.kill(victim).await;
    client.put("load/a", "51").await.unwrap();
    wait_until("the watch goes on", Duration::from_secs(20), async || {
        let count = seen.lock().unwrap().len();
        (count == 51).then_some(()).ok_or_else(|| format!("{count}"))
    })
    .await;
    check(
        &seen.lock().unwrap(),
        &BTreeMap::from([("load/a".to_owned(), 51)]),
    );
    tasks.stop();
}
