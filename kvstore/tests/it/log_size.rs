//! The log on disk: bounded in bytes, however large its entries are.

use std::path::Path;

use futures_util::future::join_all;

use crate::harness::{Cluster, wait_for};

const PUTS: usize = 480;
const AT_ONCE: usize = 8;
/// What was put is far more, and the files that are kept to be written over are far less.
const LOG_BYTES_MAX: u64 = 240 << 20;

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path()),
            Ok(data) => data.len(),
            // Removed meanwhile.
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_large_values_is_given_up_behind_snapshots() {
    let cluster = Cluster::start_with(1, |config| {
        config.store.snapshot_log_bytes = 16 << 20;
        config.store.log_keep_bytes = 32 << 20;
    })
    .await;
    let client = cluster.client(0);
    for _ in 0..PUTS / AT_ONCE {
        let puts = (0..AT_ONCE).map(|_| client.put("large", vec![b'x'; 1 << 20]));
        join_all(puts).await;
    }
    let log = cluster.folder().join("n1").join("raft");
    let mut puts = PUTS;
    wait_for("the log to be given up", async || {
        // Only what is written moves it on.
        client.put("large", vec![b'x'; 1 << 20]).await;
        puts += 1;
        let bytes = bytes_below(&log);
        if bytes < LOG_BYTES_MAX { Ok(()) } else { Err(bytes) }
    })
    .await;
    assert_eq!(client.read("large").await.number("x-kv-version"), puts as u64);
    cluster.stop().await;
}
