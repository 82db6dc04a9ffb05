//! A minute of sudden deaths, one after the other, of whoever chance chooses.
//! Invariant: nothing acknowledged is lost or done twice, no read is stale, no leader outlives its successor.

use std::time::{Duration, Instant};

use crate::ALL;
use crate::harness::Cluster;
use crate::load::{Leaders, Load, Plan, Random, Registers, say, verify};

const LENGTH: Duration = Duration::from_mins(1);
const KILLS_MIN: usize = 20;

/// The shortcut for a leader whose process is gone: what writes wait at the median, and with what one knows of nearly
/// every death. The rest may take what an election takes.
const SHORTCUT_MEDIAN_MAX: Duration = Duration::from_millis(50);
const SHORTCUT_MAX: Duration = Duration::from_millis(200);
const ELECTION_MAX: Duration = Duration::from_millis(600);

#[tokio::test]
async fn a_minute_of_kills_at_random() {
    let mut random = Random::seeded();
    let cluster = Cluster::with(3, |config| {
        config.store.snapshot_log_entries = 500;
        config.store.log_keep_entries = 50;
    });
    cluster.up().await;
    let load = Load::start(&cluster, Plan::default());
    let leaders = Leaders::watch(&cluster);
    let registers = Registers::start(&cluster, &ALL);
    load.progress(Instant::now(), 200).await;
    let end = Instant::now() + LENGTH;
    let mut kills = 0;
    // On a busy machine a minute is too short for enough of them.
    while Instant::now() < end || kills < KILLS_MIN {
        pause(&mut random, 1500).await;
        let victims = victims(&mut random, &cluster).await;
        for name in &victims {
            cluster.kill(name).await;
        }
        kills += victims.len();
        pause(&mut random, 800).await;
        for name in &victims {
            cluster.start_node(name).await;
        }
        for name in &victims {
            cluster.wait_for_state(name, "running").await;
        }
    }
    say(&format!("{kills} processes were killed"));
    load.progress(Instant::now(), 300).await;
    registers.check().await;
    leaders.stop().await;
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn twenty_leaders_that_are_killed_are_replaced_at_once() {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let mut gaps = Vec::new();
    for _ in 0..KILLS_MIN {
        let leader = cluster.leader().await;
        let killed = Instant::now();
        cluster.kill(&leader).await;
        load.progress(Instant::now(), 200).await;
        gaps.push(load.longest_gap(killed));
        cluster.start_node(&leader).await;
        cluster.wait_for_state(&leader, "running").await;
        load.progress(Instant::now(), 100).await;
    }
    gaps.sort();
    say(&format!("without writes: {gaps:?}"));
    let (median, longest) = (gaps[KILLS_MIN / 2], gaps[KILLS_MIN - 1]);
    assert!(median <= SHORTCUT_MEDIAN_MAX, "{median:?} at the median");
    assert!(longest < ELECTION_MAX, "{longest:?} at most");
    let elections = gaps.iter().filter(|gap| **gap > SHORTCUT_MAX).count();
    assert!(elections <= 1, "{elections} deaths were not seen at once");
    verify(&cluster, &ALL, load.stop().await).await;
}

/// Chance chooses the moment, since the fault is to meet every phase of the work.
async fn pause(random: &mut Random, ms_max: u64) {
    tokio::time::sleep(Duration::from_millis(random.below(ms_max))).await;
}

/// Mostly one node, often the leader, sometimes two or all.
async fn victims(random: &mut Random, cluster: &Cluster) -> Vec<String> {
    let first = usize::try_from(random.below(3)).unwrap();
    let count = match random.below(10) {
        0..3 => return vec![cluster.leader().await],
        3..7 => 1,
        7..9 => 2,
        _ => 3,
    };
    (0..count).map(|n| ALL[(first + n) % 3].to_owned()).collect()
}
