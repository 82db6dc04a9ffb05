//! A million keys: everything still goes as fast as without them, within the bounds that the design names.
//! Invariant: what is measured is measured in one run on one cluster, so that the machine's pace is the same for all.

use std::time::{Duration, Instant};

use crate::ALL;
use crate::drive::{Order, done};
use crate::harness::{Cluster, let_in, signal, start_newcomer, three_with_newcomers, wait_until};
use crate::load::{Load, Plan, say, snapshot_installed, verify};
use crate::used;

const KEYS: u32 = 1_000_000;
const FILL: Order = Order::fill(KEYS);
const PUTS: Order = Order::puts(4, KEYS);
const FLAT_PERCENT: u64 = 80;
/// Of so many measurements the best counts, since other work of the machine only ever slows one down.
const ROUNDS: usize = 3;
/// After a million puts in a minute the tables are merged for a while; that is the price of those puts.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);
const RESTART_MAX: Duration = Duration::from_secs(10);
const BACKUP_MAX: Duration = Duration::from_secs(10);
/// Of three rows, the process of the command line included.
const PAGE_MAX: Duration = Duration::from_millis(500);
/// Records read or written lately may take 512 of them.
const RESIDENT_MIB_MAX: u64 = 1000;
const STALL_MAX: Duration = Duration::from_millis(200);

/// Hundredths of a second that the nodes have computed.
async fn computed(cluster: &Cluster) -> u64 {
    let mut ticks = 0;
    for name in ALL {
        ticks += used::computed(cluster.pid(name).await.unwrap());
    }
    ticks
}

/// Until the nodes have little to do.
async fn settled(cluster: &Cluster) {
    wait_until("the tables to be merged", SETTLED_WITHIN, async || {
        let before = computed(cluster).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let percent = computed(cluster).await - before;
        (percent < 20)
            .then_some(())
            .ok_or(format!("{percent} % of a processor"))
    })
    .await;
}

async fn best_puts(cluster: &Cluster) -> u64 {
    let mut best = 0;
    for _ in 0..ROUNDS {
        best = best.max(done(&PUTS.drive(cluster).await));
    }
    best
}

async fn read_and_back_up(cluster: &Cluster) {
    let began = Instant::now();
    cluster.run(&["kv", "ls", "--limit", "3"]).await.ok();
    say(&format!("a short page took {:?}", began.elapsed()));
    assert!(began.elapsed() < PAGE_MAX, "a page took {:?}", began.elapsed());
    let count = cluster.run(&["kv", "ls", "bench/keys/", "--count"]).await;
    assert_eq!(count.stdout.trim(), KEYS.to_string());

    let began = Instant::now();
    cluster.run(&["kv", "snapshot", "million.mng"]).await.ok();
    say(&format!("a backup took {:?}", began.elapsed()));
    assert!(
        began.elapsed() < BACKUP_MAX,
        "a backup took {:?}",
        began.elapsed()
    );
    cluster.run(&["kv", "verify", "million.mng"]).await.ok();
}

#[tokio::test]
async fn a_million_keys_change_little() {
    let cluster = three_with_newcomers(1, |config| {
        // So little of the log that a newcomer cannot do without a snapshot.
        config.store.snapshot_log_entries = 5000;
        config.store.log_keep_entries = 500;
    })
    .await;
    let empty = best_puts(&cluster).await;
    FILL.drive(&cluster).await;
    let began = Instant::now();
    settled(&cluster).await;
    say(&format!(
        "the tables were merged {:?} after the last put",
        began.elapsed()
    ));
    let full = best_puts(&cluster).await;
    say(&format!("puts on an empty store {empty}, on a full one {full}"));
    assert!(full * 100 >= empty * FLAT_PERCENT, "{full} instead of {empty}");
    for name in ALL {
        let resident = used::resident_mib(cluster.pid(name).await.unwrap());
        say(&format!("{name} has {resident} MiB in memory"));
        assert!(resident < RESIDENT_MIB_MAX, "{name} has {resident} MiB in memory");
    }

    read_and_back_up(&cluster).await;

    let load = Load::start(&cluster, Plan::default());
    let began = Instant::now();
    load.progress(began, 300).await;
    let _newcomer = start_newcomer(&cluster, 4);
    let_in(&cluster, &cluster.client(), 4).await;
    snapshot_installed(&cluster, "n4").await;
    load.progress(Instant::now(), 300).await;
    let stall = load.longest_gap(began);
    say(&format!(
        "a newcomer took {:?}; the longest stall of writes was {stall:?}",
        began.elapsed()
    ));
    assert!(stall < STALL_MAX, "writes stood still for {stall:?}");
    let book = load.stop().await;

    // All at once, so that nobody is helped by the others' memory.
    let mut processes = Vec::new();
    for name in ALL {
        processes.push(cluster.pid(name).await.unwrap());
    }
    let began = Instant::now();
    for pid in processes {
        signal(pid, "KILL");
    }
    // The launcher starts again what died by itself.
    wait_until("a linearizable read", Duration::from_mins(1), async || {
        let read = cluster.client().revision().await;
        read.map_err(|error| format!("{error:?}"))
    })
    .await;
    say(&format!("ready {:?} after the restart", began.elapsed()));
    assert!(began.elapsed() < RESTART_MAX, "ready after {:?}", began.elapsed());
    verify(&cluster, &["n1", "n2", "n3", "n4"], book).await;
}
