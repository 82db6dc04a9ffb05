//! The copy has everything, once, after whatever happens beneath it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kvstore_client::PutOptions;
use serde_json::Value;
use service::config::{MirrorEngine, MirrorMode};

use crate::system::{Mirror, System, write_goods};

async fn follows(engine: MirrorEngine, mode: MirrorMode) {
    let system = System::start(engine, mode).await;
    let store = system.store();
    write_goods(&store, 1..20).await;
    let mirror = system.mirror().await;
    let synced = mirror.sync().await;
    assert!(synced["to_revision"].as_u64().unwrap() >= 22, "{synced}");
    let lease = store
        .lease_grant(std::time::Duration::from_mins(1))
        .await
        .unwrap();
    let leased = kvstore_client::PutOptions {
        lease: Some(lease.id),
        ..kvstore_client::PutOptions::default()
    };
    store.put_with("raw/leased", "x", leased).await.unwrap();
    let revision = write_goods(&store, 10..40).await;
    mirror.reaches(revision).await;
    let verdict = mirror.verify().await;
    Mirror::equal(&verdict);
    assert!(verdict["keys"].as_u64().unwrap() >= 79, "{verdict}");
    // What the shop deletes of a product is its record alone.
    store.delete("shop/petstore/live/goods/12/record").await.unwrap();
    let odd = store
        .put("shop/petstore/live/goods/13/record", "[]")
        .await
        .unwrap();
    mirror.reaches(odd.revision).await;
    Mirror::equal(&mirror.verify().await);
    let status = mirror.status().await;
    assert_eq!(status["lag_revisions"], 0, "{status}");
    assert_eq!(status["lag_ms"], 0, "{status}");
    // Stopped and started it goes on where it was, and misses nothing.
    mirror.stop().await;
    store.delete_prefix("shop/petstore/live/goods/1").await.unwrap();
    let revision = write_goods(&store, 50..60).await;
    let mirror = system.mirror().await;
    mirror.reaches(revision).await;
    Mirror::equal(&mirror.verify().await);
    mirror.stop().await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_follows() {
    follows(MirrorEngine::Sqlite, MirrorMode::Async).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_follows_synchronously() {
    follows(MirrorEngine::Sqlite, MirrorMode::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_follows() {
    follows(MirrorEngine::Json, MirrorMode::Sync).await;
}

/// A copy as an earlier version of this program left it, with a row that no key makes.
const OLD: &str = "INSERT INTO products (shop, id, name) VALUES ('petstore', '99', 'gone'); \
                   DROP TABLE answers; ALTER TABLE kv DROP COLUMN lease_ttl_ms; ALTER TABLE kv DROP COLUMN lease_owner; \
                   PRAGMA user_version = 1;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_earlier_version_is_brought_up_to_date() {
    let system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&system.store(), 1..5).await).await;
    mirror.stop().await;
    let database = system.folder().join("mirror.db");
    let changed = Command::new("sqlite3").arg(&database).arg(OLD).status().unwrap();
    assert!(changed.success());
    // It can be promoted as it is.
    let source = mirror::Source::open(&system.folder()).unwrap();
    assert!(source.answers().unwrap().is_empty());
    let keys = source.keys().unwrap();
    let rows: Vec<mirror::PromotedRow> = source.map(Result::unwrap).collect();
    assert_eq!(rows.len() as u64, keys);
    assert!(
        rows.iter()
            .any(|row| row.key == "shop/petstore/live/goods/4/stock")
    );
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&system.store(), 5..9).await).await;
    Mirror::equal(&mirror.verify().await);
    // It had no leases and no answers, so everything was read anew, once.
    let numbers = mirror.client.get("/metrics").await.expect(200).text();
    assert!(numbers.contains("mirror_rebuilds 1"), "{numbers}");
    mirror.stop().await;
    let source = mirror::Source::open(&system.folder()).unwrap();
    let first = system
        .store()
        .get("shop/petstore/live/goods/1/record")
        .await
        .unwrap();
    let first = first.unwrap().mod_revision;
    let answers = source.answers().unwrap();
    assert!(answers.iter().any(|answer| answer.revision == first), "{first}");
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&system.store(), 9..10).await).await;
    let numbers = mirror.client.get("/metrics").await.expect(200).text();
    assert!(numbers.contains("mirror_rebuilds 0"), "{numbers}");
    mirror.stop().await;
    system.cluster.stop().await;
}

/// A document as the first version of this program wrote it.
fn make_old(document: &Path) {
    let mut raw: Value = serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
    for later in ["aside", "answers", "unsynced"] {
        let removed = raw.as_object_mut().unwrap().remove(later);
        assert!(removed.is_some(), "{later} is a field of the document");
    }
    for kv in raw["kvs"].as_array_mut().unwrap() {
        kv.as_object_mut().unwrap().remove("granted");
    }
    std::fs::write(document, raw.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_of_an_earlier_version_is_made_anew() {
    let system = System::start(MirrorEngine::Json, MirrorMode::Sync).await;
    let store = system.store();
    let lease = store.lease_grant(Duration::from_mins(10)).await.unwrap();
    let leased = PutOptions {
        lease: Some(lease.id),
        ..PutOptions::default()
    };
    let leased = store.put_with("raw/leased", "x", leased).await.unwrap().revision;
    let mirror = system.mirror().await;
    let document = system.folder().join("kv.json");
    // What is in the journal alone has what lies beside.
    crate::harness::wait_for("the document to have it", async || {
        let raw: Value = serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
        let revision = raw["revision"].as_u64().unwrap();
        (revision >= leased).then_some(()).ok_or(revision)
    })
    .await;
    mirror.stop().await;
    make_old(&document);
    for rebuilds in [1, 0] {
        let mirror = system.mirror().await;
        mirror.reaches(write_goods(&store, 1..5).await).await;
        Mirror::equal(&mirror.verify().await);
        let numbers = mirror.client.get("/metrics").await.expect(200).text();
        assert!(
            numbers.contains(&format!("mirror_rebuilds {rebuilds}")),
            "{numbers}"
        );
        mirror.stop().await;
    }
    let mut source = mirror::Source::open(&system.folder()).unwrap();
    let answers = source.answers().unwrap();
    assert!(answers.iter().any(|answer| answer.revision == leased), "{leased}");
    let row = source
        .find_map(|row| row.ok().filter(|row| row.key == "raw/leased"))
        .unwrap();
    assert_eq!(row.granted.unwrap().id, lease.id);
    system.cluster.stop().await;
}

/// What was kept before the copy is made anew is in it as well; what ended goes.
async fn has_what_lies_beside(engine: MirrorEngine) {
    let system = System::start(engine, MirrorMode::Async).await;
    let store = system.store();
    let lease = store.lease_grant(Duration::from_mins(10)).await.unwrap();
    let leased = PutOptions {
        lease: Some(lease.id),
        ..PutOptions::default()
    };
    store.put_with("aside/leased", "x", leased).await.unwrap();
    for n in 0..3 {
        // Each under a key that the client makes up.
        store.put(&format!("aside/{n}"), "x").await.unwrap();
    }
    let mirror = system.mirror().await;
    mirror
        .reaches(store.put("aside/last", "x").await.unwrap().revision)
        .await;
    mirror.stop().await;
    let source = mirror::Source::open(&system.folder()).unwrap();
    let answers = source.answers().unwrap();
    let told: Vec<u64> = answers.iter().map(|answer| answer.revision).collect();
    for n in ["aside/leased", "aside/0", "aside/1", "aside/2", "aside/last"] {
        let written = store.get(n).await.unwrap().unwrap().mod_revision;
        assert!(told.contains(&written), "{n} at {written}: {told:?}");
    }
    let rows: Vec<_> = source.map(Result::unwrap).collect();
    let row = rows.iter().find(|row| row.key == "aside/leased").unwrap();
    let granted = row.granted.as_ref().unwrap();
    assert_eq!(
        (granted.id, granted.ttl_ms, granted.owner.as_str()),
        (lease.id, 600_000, "root")
    );
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_has_what_lies_beside() {
    has_what_lies_beside(MirrorEngine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_has_what_lies_beside() {
    has_what_lies_beside(MirrorEngine::Json).await;
}

async fn is_compacted_beneath(engine: MirrorEngine) {
    let system = System::start(engine, MirrorMode::Async).await;
    let store = system.store();
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&store, 1..10).await).await;
    mirror.stop().await;
    store.delete("shop/petstore/live/goods/3/record").await.unwrap();
    let revision = write_goods(&store, 20..30).await;
    store.compact(revision).await.unwrap();
    let mirror = system.mirror().await;
    mirror.reaches(revision).await;
    Mirror::equal(&mirror.verify().await);
    // And it goes on from there.
    mirror.reaches(write_goods(&store, 30..35).await).await;
    Mirror::equal(&mirror.verify().await);
    let numbers = mirror.client.get("/metrics").await.expect(200).text();
    assert!(numbers.contains("mirror_rebuilds 1"), "{numbers}");
    mirror.stop().await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_made_anew_when_the_history_is_gone() {
    is_compacted_beneath(MirrorEngine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_made_anew_when_the_history_is_gone() {
    is_compacted_beneath(MirrorEngine::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_is_told() {
    let system = System::start(MirrorEngine::Sqlite, MirrorMode::Async).await;
    let mirror = system.mirror().await;
    let store = system.store();
    let lease = store.lease_grant(Duration::from_mins(10)).await.unwrap();
    let leased = PutOptions {
        lease: Some(lease.id),
        ..PutOptions::default()
    };
    store.put_with("raw/leased", "x", leased).await.unwrap();
    mirror.reaches(write_goods(&store, 1..5).await).await;
    mirror.stop().await;
    let sql = "UPDATE kv SET lease_owner = 'other' WHERE key = 'raw/leased'; \
               UPDATE answers SET reply = x'00' WHERE rowid = (SELECT min(rowid) FROM answers WHERE owner = 'root'); \
               UPDATE kv SET value = 'other' WHERE key = 'shop/petstore/live/goods/2/stock'; \
               DELETE FROM kv WHERE key = 'raw/blob'; \
               INSERT INTO kv VALUES ('raw/extra', 'x', 1, 1, 1, 0, 0, ''); \
               UPDATE products SET name = 'Cat' WHERE id = '3';";
    let database = system.folder().join("mirror.db");
    let changed = Command::new("sqlite3").arg(&database).arg(sql).status().unwrap();
    assert!(changed.success());
    let mirror = system.mirror().await;
    let verdict = mirror.verify().await;
    assert_eq!(verdict["equal"], false);
    let told: Vec<String> = verdict["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{}: {}",
                one["key"].as_str().unwrap(),
                one["difference"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    raw/blob: not in the copy
    raw/extra: only in the copy
    raw/leased: another time or owner of its lease
    shop/petstore/live/goods/2/stock: another value
    kept answer of root: another answer
    products: the table is not what the keys make
    ");
    mirror.stop().await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_another_cluster_is_kept_beside() {
    let first = System::start(MirrorEngine::Sqlite, MirrorMode::Async).await;
    let folder = first.folder();
    let mirror = first.mirror().await;
    mirror.reaches(write_goods(&first.store(), 1..10).await).await;
    mirror.stop().await;
    let second = System::start(MirrorEngine::Sqlite, MirrorMode::Async).await;
    second.store().put("only/here", "x").await.unwrap();
    let mirror = second.mirror_in(folder.clone()).await;
    crate::harness::wait_for("the copy of the second cluster", async || {
        let verdict = mirror.client.get("/verify").await;
        let equal = verdict.status == 200 && verdict.json()["equal"] == true;
        equal.then_some(()).ok_or(verdict.text())
    })
    .await;
    let kept = std::fs::read_dir(&folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        path.file_name()?.to_str()?.starts_with("of-").then_some(path)
    });
    let count = Command::new("sqlite3")
        .arg(kept.expect("the old copy is kept"))
        .arg("SELECT count(*) FROM products")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), "9");
    mirror.stop().await;
    first.cluster.stop().await;
    second.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_another_cluster_is_not_level_with_this_one() {
    let mut system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&system.store(), 1..20).await).await;
    // A leftover that cannot be removed: as long as it is there, nothing is kept beside, and nothing replaced.
    let obstacle = system.folder().join("of-lost.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let (tasks, running) = system.begin_anew().await;
    // Fewer revisions than the copy has of the first cluster.
    let revision = system.store().put("only/here", "x").await.unwrap().revision;
    let soon = tokio::time::timeout(Duration::from_secs(2), mirror.sync()).await;
    assert!(soon.is_err(), "{soon:?}");
    crate::harness::wait_for("the lag to be all that the store has", async || {
        let status = mirror.status().await;
        let lag = status["lag_revisions"].as_u64().unwrap();
        (lag >= revision && status["cluster_revision"] == lag)
            .then_some(())
            .ok_or(status)
    })
    .await;
    std::fs::remove_dir(&obstacle).unwrap();
    let synced = mirror.sync().await;
    assert!(synced["to_revision"].as_u64().unwrap() >= revision, "{synced}");
    Mirror::equal(&mirror.verify().await);
    mirror.stop().await;
    tasks.stop();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_made_anew_are_another_cluster() {
    let mut system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&system.store(), 1..20).await).await;
    let (tasks, running) = system.begin_anew().await;
    let store = system.store();
    store.put("only/here", "x").await.unwrap();
    crate::harness::wait_for("the copy of the new nodes", async || {
        let verdict = mirror.client.get("/verify").await;
        let equal = verdict.status == 200 && verdict.json()["equal"] == true;
        let status = mirror.status().await;
        (equal && status["state"] == "ok")
            .then_some(())
            .ok_or((verdict.text(), status))
    })
    .await;
    // Also beyond where the first cluster was.
    mirror.reaches(write_goods(&store, 20..50).await).await;
    Mirror::equal(&mirror.verify().await);
    let kept = std::fs::read_dir(system.folder()).unwrap().flatten();
    let mut names = kept.map(|entry| entry.file_name().into_string().unwrap());
    assert!(names.any(|name| name.starts_with("of-")));
    mirror.stop().await;
    tasks.stop();
    running.await.unwrap().unwrap();
}
