//! A million keys: everything still goes as fast as without them, within the bounds that the design names.
//! Invariant: what is measured is measured in one run on one cluster, so that the machine's pace is the same for all.

use std::time::{Duration, Instant};

use crate::ALL;
use crate::drive::{Order, Work, done};
use crate::harness::{let_in, signal, start_newcomer, three_with_newcomers, wait_until};
use crate::load::{Load, Plan, say, snapshot_installed, verify};

const KEYS: u32 = 1_000_000;
const FILL: Order = Order {
    work: Work::Fill,
    clients: 16,
    seconds: 1,
    rate: None,
    keys: KEYS,
};
const PUTS: Order = Order {
    work: Work::Puts,
    clients: 64,
    seconds: 8,
    rate: None,
    keys: KEYS,
};
const FLAT_PERCENT: u64 = 80;
const RESTART_MAX: Duration = Duration::from_secs(10);
const BACKUP_MAX: Duration = Duration::from_secs(10);
const RESIDENT_MIB_MAX: u64 = 500;
const STALL_MAX: Duration = Duration::from_millis(200);

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}

#[tokio::test]
async fn a_million_keys_change_little() {
    let cluster = three_with_newcomers(1, |_config| {}).await;
    let empty = done(&PUTS.drive(&cluster).await);
    FILL.drive(&cluster).await;
    let full = done(&PUTS.drive(&cluster).await);
    say(&format!("puts on an empty store {empty}, on a full one {full}"));
    assert!(full * 100 >= empty * FLAT_PERCENT, "{full} instead of {empty}");
    for name in ALL {
        let resident = resident_mib(cluster.pid(name).await.unwrap());
        say(&format!("{name} has {resident} MiB in memory"));
        assert!(resident < RESIDENT_MIB_MAX, "{name} has {resident} MiB in memory");
    }

    let began = Instant::now();
    cluster.run(&["kv", "snapshot", "million.mng"]).await.ok();
    say(&format!("a backup took {:?}", began.elapsed()));
    assert!(
        began.elapsed() < BACKUP_MAX,
        "a backup took {:?}",
        began.elapsed()
    );
    cluster.run(&["kv", "verify", "million.mng"]).await.ok();

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
