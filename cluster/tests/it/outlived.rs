//! Who outlives a cluster, and finds another at its addresses: watches, near caches, mirrors, holders of an `ETag`.
//! Invariant: nobody takes the writes of the new cluster for those of the old that had, or might have had, their numbers.

use std::path::Path;

use kvstore_client::{Error, Freshness, NearCache, PutOptions, ReadOptions, WatchRequest};
use serde_json::Value;
use service::config::{MirrorConfig, MirrorEngine, MirrorMode, OnLoss};

use crate::backup::{filled, json, text};
use crate::harness::{Cluster, SOON, free_ports, wait_until};

/// A store with a mirror beside it, which is not one of its nodes.
fn mirrored() -> Cluster {
    Cluster::with(3, |config| {
        config.mirrors = vec![MirrorConfig {
            name: "copy".to_owned(),
            address: format!("127.0.0.1:{}", free_ports(1)[0]),
            engine: MirrorEngine::Sqlite,
            mode: MirrorMode::Async,
            on_loss: OnLoss::Degrade,
            interval_ms: 50,
        }];
    })
}

async fn of_copy(cluster: &Cluster, path: &str) -> Value {
    let url = format!("http://{}{path}", cluster.config.mirrors[0].address);
    cluster.http.get(url).send().await.unwrap().json().await.unwrap()
}

/// Throws the nodes away, but nobody else, and lets a cluster that begins from this file take their place.
async fn replace_nodes(cluster: &Cluster, file: &Path) -> Value {
    let nodes = ["n1", "n2", "n3"];
    for node in nodes {
        cluster.kill(node).await;
    }
    for node in nodes {
        std::fs::remove_dir_all(cluster.data().join(node)).unwrap();
    }
    let restored = json(cluster, &["kv", "restore", text(file)]).await;
    for node in nodes {
        cluster.start_node(node).await;
    }
    restored
}

/// The mirror is a copy of the new store, and what only it has of the old one is kept.
async fn begins_anew(cluster: &Cluster, written: u64) {
    let equal = wait_until("the mirror to be the new store", SOON, async || {
        let verdict = of_copy(cluster, "/verify").await;
        let reached = verdict["revision"].as_u64() >= Some(written);
        reached.then_some(verdict.clone()).ok_or(verdict.to_string())
    })
    .await;
    assert_eq!(equal["equal"], true, "{equal}");
    let copies = std::fs::read_dir(cluster.data().join("copy")).unwrap().flatten();
    let names: Vec<String> = copies
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("of-")), "{names:?}");
}

#[tokio::test]
async fn who_outlives_a_cluster_does_not_take_the_writes_of_the_next_for_its() {
    let cluster = mirrored();
    cluster.up().await;
    let client = cluster.client().with_deadline(SOON);
    client.put("pets/cat", "from the backup").await.unwrap();
    let file = cluster.folder().join("all.mng");
    let made = json(&cluster, &["kv", "snapshot", text(&file)]).await["revision"]
        .as_u64()
        .unwrap();
    let cache = NearCache::open(&client, ["pets/"]).await.unwrap();
    let mut watch = client.watch(WatchRequest::prefix("pets/")).await.unwrap();
    for n in 0..20 {
        client.put("pets/cat", format!("lost {n}")).await.unwrap();
    }
    let lost = client.get("pets/cat").await.unwrap().unwrap();
    while watch.next().await.unwrap().revision < lost.mod_revision {}
    let cached = cache.get("pets/cat", Freshness::Linearizable).await.unwrap();
    assert_eq!(cached.value.unwrap().bytes(), "lost 19");
    wait_until("the mirror to copy what will be lost", SOON, async || {
        let revision = of_copy(&cluster, "/status").await["revision"].as_u64();
        (revision >= Some(lost.mod_revision))
            .then_some(())
            .ok_or(format!("{revision:?}"))
    })
    .await;

    let restored = replace_nodes(&cluster, &file).await;
    // As many writes as were lost, so that numbers given again would meet.
    let mut written = client.put("pets/cat", "new").await.unwrap().revision;
    assert!(Some(written) > restored["continues_at"].as_u64(), "{restored}");
    for n in 0..30 {
        written = client.put("pets/dog", format!("{n}")).await.unwrap().revision;
    }
    let ended = watch.next().await;
    let ended = ended.expect_err("a watch of the old cluster was told of the new one");
    assert!(matches!(ended, Error::Compacted { .. }), "{ended}");
    let cached = cache.get("pets/cat", Freshness::Linearizable).await.unwrap();
    assert_eq!(cached.value.unwrap().bytes(), "new");
    let held = client.put_with(
        "pets/cat",
        "mine",
        PutOptions {
            if_match: Some(lost.mod_revision),
            ..PutOptions::default()
        },
    );
    assert_eq!(held.await.unwrap_err().code(), "precondition-failed");
    // The past of the backup is there; what came behind it is not.
    let at = async |revision| {
        let level = ReadOptions {
            revision: Some(revision),
            ..ReadOptions::default()
        };
        client.read("pets/cat", level).await
    };
    assert_eq!(at(made).await.unwrap().kv.unwrap().bytes(), "from the backup");
    assert_eq!(at(written).await.unwrap().kv.unwrap().bytes(), "new");
    for revision in [made + 1, lost.mod_revision, lost.mod_revision + 1000] {
        assert_eq!(at(revision).await.unwrap_err().code(), "compacted");
        let refused = client.watch(WatchRequest::prefix("").from(revision)).await;
        assert_eq!(refused.err().unwrap().code(), "compacted");
    }
    begins_anew(&cluster, written).await;
}

#[tokio::test]
async fn the_same_backup_twice_gives_no_revision_twice() {
    let cluster = filled().await;
    let client = cluster.client().with_deadline(SOON);
    let file = cluster.folder().join("all.mng");
    json(&cluster, &["kv", "snapshot", text(&file)]).await;
    let mut known = 0;
    // What the second cluster writes would be in the third's numbers.
    for writes in [20, 40] {
        let restored = replace_nodes(&cluster, &file).await;
        assert!(
            restored["continues_at"].as_u64() > Some(known),
            "{restored} after {known}"
        );
        for n in 0..writes {
            let written = client.put("animals/8", format!("{n}")).await.unwrap();
            assert!(written.revision > known);
            if writes == 20 {
                known = written.revision;
            }
        }
    }
    let refused = client.watch(WatchRequest::prefix("").from(known + 1)).await;
    assert_eq!(refused.err().unwrap().code(), "compacted");
    let held = client.delete_with("animals/8", Some(known)).await;
    assert!(held.unwrap_err().is_conflict());
}

#[tokio::test]
async fn nodes_made_anew_with_nothing_are_another_cluster_too() {
    let cluster = filled().await;
    let client = cluster.client().with_deadline(SOON);
    let mut watch = client.watch(WatchRequest::prefix("")).await.unwrap();
    let known = watch.position();
    let nodes = ["n1", "n2", "n3"];
    for node in nodes {
        cluster.kill(node).await;
    }
    for node in nodes {
        std::fs::remove_dir_all(cluster.data().join(node)).unwrap();
    }
    for node in nodes {
        cluster.start_node(node).await;
    }
    let mut present = 0;
    while present <= known {
        present = client.put("animals/new", "x").await.unwrap().revision;
    }
    let ended = watch.next().await;
    let ended = ended.expect_err("what came behind the last revision that was known is of another cluster");
    assert!(ended.is_compacted(), "{ended}");
}
