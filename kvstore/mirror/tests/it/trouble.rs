//! A disk that is full: the mirror says so, and goes on by itself once there is room.

use std::path::{Path, PathBuf};
use std::process::Command;

use service::config::{MirrorEngine, MirrorMode};

use crate::harness::wait_for;
use crate::system::{Mirror, System, write_goods};

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
