//! Power loss of a node while it receives and installs a snapshot.
//! Invariant: it comes back with its old state or with the new one, never with half of each, and catches up.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ALL;
use crate::disk::Disk;
use crate::harness::{Cluster, wait_until};
use crate::load::{Load, Plan, Random, equal_everywhere, moves_on, say, verify};
use crate::power_loss::lose_power;

/// Makes the snapshot large enough to be caught on its way.
const LARGE_VALUES: usize = 96;
const MOMENT_MAX: Duration = Duration::from_secs(4);

/// What shows that the install has come to a certain point.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Receiving,
    Keeping,
    Switching,
    Random,
}

impl Moment {
    fn is_there(self, folder: &Path, before: u64) -> bool {
        let temporary = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".tmp");
        let holds = |folder: &Path, wanted: &dyn Fn(std::ffi::OsString) -> bool| {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            entries.flatten().any(|entry| wanted(entry.file_name()))
        };
        match self {
            Self::Receiving => folder.join("sm/incoming.tmp").exists(),
            Self::Keeping => holds(&folder.join("snapshots"), &temporary),
            Self::Switching => folder.join("sm").join((before + 1).to_string()).exists(),
            Self::Random => true,
        }
    }
}

fn generation(folder: &Path) -> u64 {
    let current = std::fs::read_to_string(folder.join("sm/CURRENT"));
    current.map_or(1, |current| current.trim().parse().unwrap())
}

#[tokio::test]
async fn a_snapshot_that_is_installed_when_the_power_goes_is_there_or_not() {
    let mut random = Random::seeded();
    let cluster = Cluster::with(3, |config| {
        config.store.snapshot_log_entries = 100;
        config.store.log_keep_entries = 10;
    });
    let disks = Disk::under(&cluster);
    // Declared after the disks, so that it stops before they go.
    let cluster = cluster;
    cluster.up().await;
    let client = cluster.client();
    for n in 0..LARGE_VALUES {
        client
            .put(&format!("large/{n}"), vec![b'x'; 1 << 20])
            .await
            .unwrap();
    }
    let load = Load::start(&cluster, Plan::many_entries());
    let mut caught = 0;
    for moment in [
        Moment::Receiving,
        Moment::Keeping,
        Moment::Switching,
        Moment::Random,
        Moment::Random,
    ] {
        load.progress(Instant::now(), 100).await;
        let victim = cluster.follower().await;
        let number = ALL.iter().position(|name| *name == victim).unwrap();
        let folder = cluster.data().join(&victim);
        cluster.kill(&victim).await;
        moves_on(&cluster, &cluster.leader().await).await;
        let before = generation(&folder);
        cluster.start_node(&victim).await;
        // A moment that has passed, or does not come since the log still reaches back so far, is no fault.
        let begin = Instant::now();
        let seen = wait_until(&format!("{moment:?}"), Duration::from_secs(20), async || {
            if moment.is_there(&folder, before) {
                return Ok(true);
            }
            let passed = generation(&folder) > before || begin.elapsed() > MOMENT_MAX;
            if passed {
                Ok(false)
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
        if matches!(moment, Moment::Random) {
            tokio::time::sleep(Duration::from_millis(random.below(600))).await;
        }
        lose_power(&cluster, &disks, &[number]).await;
        let after = generation(&folder);
        say(&format!(
            "{victim}: {moment:?} seen: {seen}; generation {before} before, {after} after"
        ));
        caught += usize::from(seen && after == before);
        cluster.wait_for_state(&victim, "running").await;
    }
    assert!(caught > 1, "the power hardly ever went before the switch");
    load.progress(Instant::now(), 200).await;
    verify(&cluster, &ALL, load.stop().await).await;
    equal_everywhere(&cluster, &ALL).await;
}
