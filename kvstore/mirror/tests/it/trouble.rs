//! A disk that is full or cannot be written: the mirror says so, its rule applies, and it goes on by itself once there
//! is room, or once there is nothing more to be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use service::config::{MirrorEngine, MirrorMode, OnLoss};

use crate::harness::wait_for;
use crate::system::{Mirror, Running, System, write_goods};

/// A small file system in memory, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "none"])
            .arg(at)
            .status();
        assert!(
            mounted.unwrap().success(),
            "a fault that cannot be caused is not tested"
        );
        Self(at.to_owned())
    }

    fn grow(&self) {
        let remounted = Command::new("mount")
            .args(["-o", "remount,size=32m"])
            .arg(&self.0)
            .status();
        assert!(remounted.unwrap().success());
    }

    fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn says_that_the_disk_is_full(engine: MirrorEngine) {
    let system = System::start(engine, MirrorMode::Async).await;
    let disk = SmallDisk::mount(&system.cluster.folder().join("small"));
    let store = system.store();
    let mirror = system.mirror_in(disk.0.join("copy")).await;
    mirror.reaches(write_goods(&store, 1..5).await).await;
    let stuffing = disk.0.join("stuffing");
    // As much as there is room for.
    let _full = std::fs::write(&stuffing, vec![0; 4 << 20]);
    for number in 0..40 {
        store
            .put(&format!("raw/large-{number}"), vec![b'x'; 20_000])
            .await
            .unwrap();
    }
    wait_for("the mirror to say that it cannot write", async || {
        let status = mirror.status().await;
        (status["state"] == "degraded" && status["trouble"].is_string())
            .then_some(())
            .ok_or(status)
    })
    .await;
    assert!(mirror.status().await["lag_revisions"].as_u64().unwrap() > 0);
    mirror.client.get("/products/1").await.expect(200);
    std::fs::remove_file(&stuffing).unwrap();
    let revision = store.revision().await.unwrap();
    mirror.reaches(revision).await;
    Mirror::equal(&mirror.verify().await);
    assert!(mirror.status().await["trouble"].is_null());
    mirror.stop().await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_says_that_the_disk_is_full() {
    says_that_the_disk_is_full(MirrorEngine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_says_that_the_disk_is_full() {
    says_that_the_disk_is_full(MirrorEngine::Json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_does_not_fit_gives_its_room_back() {
    let system = System::start(MirrorEngine::Sqlite, MirrorMode::Async).await;
    let disk = SmallDisk::mount(&system.cluster.folder().join("small"));
    let store = system.store();
    for number in 0..80 {
        let value = vec![b'x'; 50_000];
        store.put(&format!("raw/large-{number}"), value).await.unwrap();
    }
    let mirror = system.mirror_in(disk.0.join("copy")).await;
    wait_for("the mirror to say that it cannot write", async || {
        let status = mirror.status().await;
        status["trouble"].is_string().then_some(()).ok_or(status)
    })
    .await;
    wait_for("the room to be free again", async || {
        let free = disk.free_bytes();
        (free > 1 << 20).then_some(()).ok_or(free)
    })
    .await;
    assert_eq!(mirror.status().await["revision"], 0);
    disk.grow();
    mirror.reaches(store.revision().await.unwrap()).await;
    Mirror::equal(&mirror.verify().await);
    let log = disk.0.join("copy/mirror.db-wal");
    wait_for("the log to be small", async || {
        let bytes = std::fs::metadata(&log).unwrap().len();
        (bytes < 1 << 20).then_some(()).ok_or(bytes)
    })
    .await;
    mirror.stop().await;
    system.cluster.stop().await;
}

/// A synchronous mirror whose disk is full holds nothing up that the rule does not hold up.
async fn the_rule_applies(rule: OnLoss) {
    let mut system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    system.config.mirrors[0].on_loss = rule;
    let disk = SmallDisk::mount(&system.cluster.folder().join("small"));
    let mirror = system.mirror_in(disk.0.join("copy")).await;
    let store = system.cluster.client(0);
    let write = async |value: Vec<u8>| {
        let request = store.request(Method::PUT, "/v1/kv/raw/large");
        store.send(request.body(value)).await
    };
    wait_for("the store to wait for the mirror", async || {
        let written = write(b"small".to_vec()).await.expect(200);
        let waited = written.header("x-kv-mirror") == "ok";
        waited.then_some(()).ok_or(written.text())
    })
    .await;
    let stuffing = disk.0.join("stuffing");
    let _full = std::fs::write(&stuffing, vec![0; 4 << 20]);
    wait_for("the rule to apply", async || {
        // Until one finds no room any more, they are acknowledged as ever.
        let written = write(vec![b'x'; 50_000]).await;
        match rule {
            OnLoss::Degrade => {
                let went_on = written.expect(200);
                let said = went_on.header("x-kv-mirror").to_owned();
                (said == "degraded").then_some(()).ok_or(said)
            }
            OnLoss::Block => {
                let refused = written.status == 503 && written.code() == "mirror-lost";
                refused.then_some(()).ok_or(written.text())
            }
        }
    })
    .await;
    let status = mirror.status().await;
    assert_eq!(status["state"], "degraded", "{status}");
    assert!(status["trouble"].is_string(), "{status}");
    std::fs::remove_file(&stuffing).unwrap();
    wait_for("the store to wait for the mirror again", async || {
        let written = write(b"small".to_vec()).await;
        let waited = written.status == 200 && written.header("x-kv-mirror") == "ok";
        waited.then_some(()).ok_or(written.text())
    })
    .await;
    Mirror::equal(&mirror.verify().await);
    mirror.stop().await;
    system.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_without_a_mirror_whose_disk_is_full() {
    the_rule_applies(OnLoss::Degrade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_a_mirror_whose_disk_is_full() {
    the_rule_applies(OnLoss::Block).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_written_is_told_at_the_start() {
    let system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    let disk = SmallDisk::mount(&system.cluster.folder().join("small"));
    let mirror = system.mirror_in(disk.0.join("copy")).await;
    mirror.reaches(write_goods(&system.store(), 1..3).await).await;
    mirror.stop().await;
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&disk.0)
        .status();
    assert!(remounted.unwrap().success());
    let error = system.run_in(disk.0.join("copy")).await.unwrap_err();
    let said = format!("{error:#}");
    let place = system.cluster.folder().join("small/copy");
    assert!(said.contains(place.to_str().unwrap()), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    system.cluster.stop().await;
}

async fn says_of_trouble(mirror: &Mirror, told: bool) {
    wait_for("the mirror to say how it is", async || {
        let status = mirror.status().await;
        (status["trouble"].is_string() == told)
            .then_some(())
            .ok_or(status)
    })
    .await;
}

async fn stop((tasks, running): Running) {
    tasks.stop();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_set_aside_is_no_trouble_when_its_cluster_is_back() {
    let mut system = System::start(MirrorEngine::Sqlite, MirrorMode::Async).await;
    // No change that comes is written by itself, and tells that the copy can be written.
    system.config.mirrors[0].interval_ms = 3_600_000;
    write_goods(&system.store(), 1..5).await;
    let mirror = system.mirror().await;
    mirror.reaches(1).await;
    // What an earlier try left behind, and cannot be removed.
    std::fs::create_dir(system.folder().join("of-another-5.tmp")).unwrap();
    let another = system.begin_anew().await;
    says_of_trouble(&mirror, true).await;
    stop(another).await;
    let first = system.begin_again().await;
    says_of_trouble(&mirror, false).await;
    mirror.sync().await;
    mirror.stop().await;
    stop(first).await;
}
