//! Disks that fill up: under all nodes, and under a follower alone.
//! Invariant: writes are refused before anything breaks, reads go on, and room is all it takes to recover.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use crate::ALL;
use crate::disk::Disk;
use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Load, Plan, say, verify};

const DISK_BYTES: u64 = 640 << 20;
/// Twice what a log holds reserved and gives back when its node ends.
const FREE_MIN: u64 = 160 << 20;

fn small_disks() -> (Cluster, Vec<Disk>) {
    let cluster = Cluster::with(3, |config| {
        config.limits.disk_free_bytes_min = FREE_MIN;
        config.store.flush_every_s = 2;
    });
    let disks = Disk::of_size_under(&cluster, DISK_BYTES);
    (cluster, disks)
}

async fn put(cluster: &Cluster, name: &str) -> (StatusCode, Value) {
    let request = cluster.request("PUT", name, "/v1/kv/probe").body("x");
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn writes_are_refused_before_the_disks_are_full_and_taken_again_by_themselves() {
    let (cluster, disks) = small_disks();
    // Declared after the disks, so that it stops before they go.
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let book = load.stop().await;
    for freeing in ["n1", "n3"] {
        for disk in &disks {
            disk.fill_up_to(FREE_MIN / 2);
        }
        for name in ALL {
            wait_until(&format!("{name} takes no writes"), SOON, async || {
                let (status, body) = put(&cluster, name).await;
                let full = status == StatusCode::INSUFFICIENT_STORAGE && body["code"] == "disk-full";
                full.then_some(()).ok_or_else(|| format!("{status}: {body}"))
            })
            .await;
            let read = cluster
                .request("GET", name, "/v1/kv?prefix=load/&limit=5")
                .send()
                .await;
            assert_eq!(read.unwrap().status(), StatusCode::OK, "{name} reads");
        }
        // What frees room is taken all the same.
        let freed = cluster.request("DELETE", freeing, "/v1/kv/probe").send().await;
        assert_eq!(freed.unwrap().status(), StatusCode::OK);
        for disk in &disks {
            disk.free();
        }
        for name in ALL {
            wait_until(&format!("{name} takes writes again"), SOON, async || {
                let (status, body) = put(&cluster, name).await;
                (status == StatusCode::OK)
                    .then_some(())
                    .ok_or_else(|| format!("{status}: {body}"))
            })
            .await;
            assert_eq!(
                cluster.process(name).await["restarts"],
                0,
                "{name} lived through it"
            );
        }
    }
    verify(&cluster, &ALL, book).await;
}

/// Its leader has room and goes on; the follower cannot keep up with what it cannot store.
#[tokio::test]
async fn a_follower_without_room_ends_and_comes_back_by_itself() {
    let (cluster, disks) = small_disks();
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let full = cluster.follower().await;
    let disk = &disks[ALL.iter().position(|name| *name == full).unwrap()];
    disk.fill_up_to(0);
    wait_until(
        "the follower has run out of room",
        Duration::from_mins(1),
        async || {
            let log = cluster.log(&full);
            log.contains("the disk is full: this node starts when")
                .then_some(())
                .ok_or_else(|| log.lines().last().unwrap_or_default().to_owned())
        },
    )
    .await;
    say(&format!("{full} ended for want of room"));
    // The others neither stop nor refuse anything.
    load.progress(Instant::now(), 500).await;
    assert_ne!(cluster.state(&full).await, "failed");
    disk.free();
    cluster.wait_for_state(&full, "running").await;
    load.progress(Instant::now(), 200).await;
    let book = load.stop().await;
    verify(&cluster, &ALL, book).await;
}

/// The others have room: what the leader cannot take is no reason to refuse anybody.
#[tokio::test]
async fn a_leader_without_room_lets_another_lead() {
    let (cluster, disks) = small_disks();
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let book = load.stop().await;
    let full = cluster.leader().await;
    let disk = &disks[ALL.iter().position(|name| *name == full).unwrap()];
    disk.fill_up_to(FREE_MIN / 2);
    wait_until("another leads", SOON, async || {
        let leader = cluster.leader().await;
        (leader != full).then_some(()).ok_or(leader)
    })
    .await;
    // Its own clients are refused, and nobody else's.
    let (status, body) = put(&cluster, &full).await;
    assert_eq!(
        (status, body["code"].as_str()),
        (StatusCode::INSUFFICIENT_STORAGE, Some("disk-full"))
    );
    let other = cluster.leader().await;
    assert_eq!(put(&cluster, &other).await.0, StatusCode::OK);
    let client = cluster.client();
    for n in 0..200 {
        client.put(&format!("meanwhile/{n}"), "x").await.unwrap();
    }
    disk.free();
    wait_until("it takes writes again", SOON, async || {
        let (status, body) = put(&cluster, &full).await;
        (status == StatusCode::OK)
            .then_some(())
            .ok_or_else(|| format!("{status}: {body}"))
    })
    .await;
    verify(&cluster, &ALL, book).await;
}
