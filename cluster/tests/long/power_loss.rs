//! Power loss under load: of one node, and of all at once.
//! Invariant: what was acknowledged was on enough disks before; a store that does not sync is found out.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::ALL;
use crate::disk::Disk;
use crate::harness::Cluster;
use crate::load::{Book, Fate, Load, Plan, Random, say, verify};

const ROUNDS: usize = 4;

/// In place of the real calls: a disk that is told to sync does nothing.
const NO_SYNC: &str = "int fsync(int fd) { return 0; }\nint fdatasync(int fd) { return 0; }\n\
    int sync_file_range(int fd, long from, long count, unsigned flags) { return 0; }\n";

/// Takes the power from these nodes at once, and lets them start again.
pub(crate) async fn lose_power(cluster: &Cluster, disks: &[Disk], victims: &[usize]) {
    for victim in victims {
        disks[*victim].cut();
    }
    for victim in victims {
        assert!(
            disks[*victim].is_dead(),
            "the power of {} was not lost",
            ALL[*victim]
        );
        cluster.kill(ALL[*victim]).await;
    }
    for victim in victims {
        disks[*victim].boot().await;
        cluster.start_node(ALL[*victim]).await;
    }
}

fn on_disks() -> (Cluster, Vec<Disk>) {
    let cluster = Cluster::new(3);
    let disks = Disk::under(&cluster);
    (cluster, disks)
}

async fn all_run(cluster: &Cluster) {
    for name in ALL {
        cluster.wait_for_state(name, "running").await;
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_one_node_loses_power() {
    let mut random = Random::seeded();
    let (cluster, disks) = on_disks();
    // Declared after the disks, so that it stops before they go.
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    for round in 0..ROUNDS {
        load.progress(Instant::now(), 100 + usize::try_from(random.below(400)).unwrap())
            .await;
        // Every other time the leader, which has the most to lose.
        let leader = cluster.leader().await;
        let victim = if round % 2 == 0 {
            ALL.iter().position(|name| *name == leader).unwrap()
        } else {
            usize::try_from(random.below(3)).unwrap()
        };
        say(&format!("{} loses power; {leader} leads", ALL[victim]));
        lose_power(&cluster, &disks, &[victim]).await;
        all_run(&cluster).await;
    }
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_all_nodes_lose_power_at_once() {
    all_lose_power().await;
}

pub(crate) async fn all_lose_power() {
    let mut random = Random::seeded();
    let (cluster, disks) = on_disks();
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    for _ in 0..ROUNDS {
        load.progress(Instant::now(), 200 + usize::try_from(random.below(400)).unwrap())
            .await;
        lose_power(&cluster, &disks, &[0, 1, 2]).await;
        all_run(&cluster).await;
    }
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &ALL, load.stop().await).await;
}

/// Files of the log are written over once what they held is in tables: the end of the new entries then has old
/// ones behind it, which must not be taken for what follows.
#[tokio::test]
async fn nothing_acknowledged_is_lost_from_log_files_that_are_written_over() {
    let mut random = Random::seeded();
    let (cluster, disks) = on_disks();
    let cluster = cluster;
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    for round in 0..ROUNDS {
        let written_over = ALL.map(|name| files_written_over(&cluster, name));
        for n in 0.. {
            fill(&cluster, round, n).await;
            let now = ALL.map(|name| files_written_over(&cluster, name));
            if now.iter().zip(&written_over).all(|(now, before)| now > before) {
                break;
            }
            assert!(n < 20, "no file of the log was written over: {now:?}");
        }
        load.progress(Instant::now(), 100 + usize::try_from(random.below(400)).unwrap())
            .await;
        lose_power(&cluster, &disks, &[0, 1, 2]).await;
        all_run(&cluster).await;
    }
    load.progress(Instant::now(), 300).await;
    verify(&cluster, &ALL, load.stop().await).await;
}

/// Some MiB of large values.
async fn fill(cluster: &Cluster, round: usize, n: usize) {
    let client = cluster.client();
    let writers = (0..8).map(|writer| {
        let client = client.clone();
        async move {
            for value in 0..16 {
                let key = format!("large/{round}/{n}/{writer}/{value}");
                client.put(&key, vec![b'x'; 64 << 10]).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
}

/// As RocksDB tells it: each process begins a new file for that.
fn files_written_over(cluster: &Cluster, name: &str) -> usize {
    let told = cluster.data().join(name).join("raft/db");
    let entries = std::fs::read_dir(&told).unwrap().flatten();
    let told = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("LOG"));
    let told = told.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
    told.map(|text| text.matches("reusing log").count()).sum()
}

/// The same fault against a store whose syncs do nothing: if this finds no loss, neither would the tests above.
#[tokio::test]
async fn a_store_that_does_not_sync_is_found_out() {
    let (cluster, disks) = on_disks();
    let cluster = cluster;
    let (source, library) = (
        cluster.folder().join("no_sync.c"),
        cluster.folder().join("no_sync.so"),
    );
    std::fs::write(&source, NO_SYNC).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(
        built.unwrap().success(),
        "the C compiler that builds the store is missing"
    );
    let mut up = cluster.command(&["up", "--detach"]);
    assert!(
        up.env("LD_PRELOAD", &library)
            .output()
            .await
            .unwrap()
            .status
            .success()
    );
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 300).await;
    // That much may survive: only the newest writes are at stake, as with a sync that comes too late.
    for disk in &disks {
        disk.sync();
    }
    load.progress(Instant::now(), 600).await;
    lose_power(&cluster, &disks, &[0, 1, 2]).await;
    let lost = lost(&cluster, load.stop().await).await;
    say(&lost);
}

/// What shows that the store lost something; fails when nothing does.
async fn lost(cluster: &Cluster, book: Book) -> String {
    let scan = cluster
        .client()
        .with_deadline(Duration::from_secs(20))
        .scan("load/")
        .await;
    let Ok(scan) = scan else {
        // What makes it stay away must be what the nodes miss, not how slow the machine is.
        let logs = ALL.map(|name| cluster.log(name));
        let misses = ["are gone", "damaged", "DAMAGED", "orrupt"];
        let missing = logs
            .iter()
            .filter(|log| misses.iter().any(|word| log.contains(word)));
        assert!(
            missing.count() > 0,
            "the store does not come back, and says nothing is missing: {scan:?}"
        );
        return format!("the store does not come back at all: {scan:?}");
    };
    let found: Vec<&str> = scan.kvs.iter().map(|kv| kv.key.as_str()).collect();
    let acknowledged = book.puts.iter().filter(|(_, fate)| matches!(fate, Fate::Done(_)));
    let missing = acknowledged
        .filter(|(key, _)| found.binary_search(&key.as_str()).is_err())
        .count();
    assert!(
        missing > 0,
        "no sync reached the disks, and nothing is missing: {}",
        book.summary()
    );
    format!("{missing} acknowledged keys are missing")
}
