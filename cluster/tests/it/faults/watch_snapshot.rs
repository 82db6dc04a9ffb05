//! A watch on a node that gets a new state as a whole under it.
//! Invariant: it goes on from where it was: every change once and in order, and nobody is called too slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use service::tasks::Tasks;

use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, moves_on, short_log, snapshot_installed, verify};

/// After this long without an answer the leader no longer keeps the log for it.
const GIVEN_UP: Duration = Duration::from_secs(7);

/// Name and data of each event of one connection.
type Events = Arc<Mutex<Vec<(String, Value)>>>;

async fn connect(cluster: &Cluster, name: &str, tasks: &Tasks) -> Events {
    let watch = cluster
        .request("GET", name, "/v1/watch?prefix=load/")
        .send()
        .await;
    let mut pieces = watch.unwrap().error_for_status().unwrap().bytes_stream();
    let events = Events::default();
    let (seen, stop) = (Arc::clone(&events), tasks.clone());
    tasks.spawn("watch", async move {
        let mut text = String::new();
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = stop.stopping() => return,
            };
            let Some(Ok(piece)) = piece else {
                seen.lock().unwrap().push(("end".to_owned(), Value::Null));
                return;
            };
            text.push_str(std::str::from_utf8(&piece).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    let data = serde_json::from_str(data).unwrap();
                    seen.lock().unwrap().push((name.to_owned(), data));
                }
                text = rest.to_owned();
            }
        }
    });
    events
}

#[tokio::test]
async fn a_watch_goes_on_over_the_install_of_a_snapshot() {
    let cluster = short_log().await;
    let away = cluster.follower().await;
    let tasks = Tasks::new();
    let events = connect(&cluster, &away, &tasks).await;
    wait_until("the watch has begun", Duration::from_secs(10), async || {
        let begun = events
            .lock()
            .unwrap()
            .first()
            .is_some_and(|(name, _)| name == "progress");
        begun.then_some(()).ok_or_else(|| "nothing yet".to_owned())
    })
    .await;
    let load = Load::start(&cluster, Plan::many_entries());
    load.progress(Instant::now(), 200).await;
    let leader = cluster.leader().await;
    // Stopped, so that the watch stays open while it falls behind.
    cluster.pause(&away).await;
    let paused = Instant::now();
    tokio::time::sleep_until((paused + GIVEN_UP).into()).await;
    moves_on(&cluster, &leader).await;
    cluster.resume(&away).await;
    snapshot_installed(&cluster, &away).await;
    load.progress(Instant::now(), 200).await;
    let book = load.stop().await;
    let scan = cluster.client().scan("load/").await.unwrap();
    let expected: BTreeMap<String, u64> = scan.kvs.iter().map(|kv| (kv.key.clone(), kv.version)).collect();
    let changes = usize::try_from(expected.values().sum::<u64>()).unwrap();
    wait_until(
        "the watch has seen everything",
        Duration::from_secs(20),
        async || {
            let seen = events.lock().unwrap();
            let count = seen.iter().filter(|(name, _)| name == "put").count();
            (count >= changes || seen.last().is_some_and(|(name, _)| name == "end"))
                .then_some(())
                .ok_or_else(|| format!("{count} of {changes}"))
        },
    )
    .await;
    tasks.stop();
    let (mut revision, mut versions) = (0, BTreeMap::new());
    for (name, data) in events.lock().unwrap().iter() {
        match name.as_str() {
            "progress" => {}
            "put" => {
                let modified = data["mod_revision"].as_u64().unwrap();
                assert!(modified >= revision, "{data} comes after revision {revision}");
                revision = modified;
                let key = data["key"].as_str().unwrap().to_owned();
                let version: &mut u64 = versions.entry(key).or_default();
                *version += 1;
                assert_eq!(data["version"], *version, "{data}");
            }
            other => panic!("a watch that kept up is told {other}: {data}"),
        }
    }
    assert_eq!(versions, expected);
    verify(&cluster, &["n1", "n2", "n3"], book).await;
}
