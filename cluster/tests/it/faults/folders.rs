//! Folders of nodes that are not as the node left them: parts are gone, or were put back from an older copy.
//! Invariant: a node that may have forgotten what it voted or acknowledged says so and does not start; the others go on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, verify};

/// A follower ends in some way, its folder is changed, and it must not start again.
async fn does_not_start_again(end: End, change: impl FnOnce(&Path), said: &str) {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let name = cluster.follower().await;
    let folder = cluster.data().join(&name);
    match end {
        End::Killed => cluster.kill(&name).await,
        // What it applied is on disk then.
        End::Stopped => cluster.term(&name).await,
        End::StoppedTwice => {
            cluster.term(&name).await;
            copy(&folder.join("raft"), &folder.join("copy"));
            cluster.start_node(&name).await;
            cluster.wait_for_state(&name, "running").await;
            load.progress(Instant::now(), 200).await;
            cluster.term(&name).await;
        }
    }
    change(&folder);
    cluster.start_node(&name).await;
    wait_until("it says what is wrong", Duration::from_secs(30), async || {
        let log = cluster.log(&name);
        log.contains(said).then_some(()).ok_or(log)
    })
    .await;
    cluster.kill(&name).await;
    load.progress(Instant::now(), 200).await;
    let rest = ["n1", "n2", "n3"].into_iter().filter(|rest| *rest != name);
    verify(&cluster, &rest.collect::<Vec<&str>>(), load.stop().await).await;
}

#[derive(Clone, Copy)]
enum End {
    Killed,
    Stopped,
    /// With a copy of the log that was made in between.
    StoppedTwice,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &there);
        } else {
            std::fs::copy(&path, &there).unwrap();
        }
    }
}

fn remove(folder: &Path, parts: &[&str]) {
    for part in parts {
        std::fs::remove_dir_all(folder.join(part)).unwrap();
    }
}

/// Puts the copy back, and answers where.
fn put_back(folder: &Path) -> PathBuf {
    let raft = folder.join("raft");
    std::fs::rename(&raft, folder.join("newer")).unwrap();
    std::fs::rename(folder.join("copy"), &raft).unwrap();
    raft
}

#[tokio::test]
async fn a_member_that_lost_only_its_log_does_not_start() {
    let gone = "the log of this node is gone";
    does_not_start_again(End::Stopped, |folder| remove(folder, &["raft"]), gone).await;
}

/// Its state was never written out, so that nothing but its name tells that it was ever there.
#[tokio::test]
async fn a_young_member_that_lost_its_log_does_not_start() {
    let gone = "the log of this node is gone";
    does_not_start_again(End::Killed, |folder| remove(folder, &["raft"]), gone).await;
}

/// It still shows the disk that the others know.
#[tokio::test]
async fn a_member_that_kept_only_its_name_does_not_start() {
    let gone = "the log of this node is gone";
    let change = |folder: &Path| remove(folder, &["raft", "sm", "snapshots"]);
    does_not_start_again(End::Stopped, change, gone).await;
}

#[tokio::test]
async fn a_member_whose_log_was_put_back_does_not_start() {
    let change = |folder: &Path| drop(put_back(folder));
    does_not_start_again(End::StoppedTwice, change, "was put back from an older copy").await;
}

/// Also where it seems to have been started as often: its state knows more than this log ever had.
#[tokio::test]
async fn a_member_whose_state_is_newer_than_its_log_does_not_start() {
    let change = |folder: &Path| {
        let raft = put_back(folder);
        std::fs::copy(folder.join("newer/STARTS"), raft.join("STARTS")).unwrap();
    };
    does_not_start_again(End::StoppedTwice, change, "is older than its state").await;
}
