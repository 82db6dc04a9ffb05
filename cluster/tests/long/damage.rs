//! Files that lost their end, or have a wrong bit, since their node was down: of the log here, of tables and
//! snapshots in `tables`.
//! Invariant: the node notices; it neither votes nor leads on what it no longer knows, and nothing that it
//! once acknowledged is lost through it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ALL;
use crate::harness::{Cluster, wait_until};
use crate::load::{Leaders, Load, Plan, Random, say, verify};

const GONE: &str = "are gone: this node neither votes nor leads";
const BACK: &str = "the lost entries are back";

mod tables;

#[derive(Clone, Copy, Debug)]
enum Damage {
    CutEnd,
    FlipBit,
}

/// The file that holds the newest entries of a node's log.
fn newest_log_file(cluster: &Cluster, name: &str) -> PathBuf {
    let folder = cluster.data().join(name).join("raft/db");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let newest = logs.filter(|path| path.metadata().unwrap().len() > 0).max();
    newest.expect("the log has a file that is not empty")
}

fn damage(cluster: &Cluster, name: &str, damage: Damage, random: &mut Random) {
    let path = newest_log_file(cluster, name);
    let length = path.metadata().unwrap().len();
    // Somewhere in the last quarter, so that entries are lost but not all.
    damage_at(&path, length - 1 - random.below(length / 4), damage, random);
}

fn damage_at(path: &Path, place: u64, damage: Damage, random: &mut Random) {
    let file: File = OpenOptions::new().read(true).write(true).open(path).unwrap();
    match damage {
        Damage::CutEnd => file.set_len(place).unwrap(),
        Damage::FlipBit => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << random.below(8)], place)
                .unwrap();
        }
    }
    say(&format!("{damage:?} at {place} in {}", path.display()));
}

async fn notices(cluster: &Cluster, name: &str) {
    wait_until("the damage is noticed", Duration::from_secs(20), async || {
        let log = cluster.log(name);
        log.contains(GONE).then_some(()).ok_or(log)
    })
    .await;
}

async fn a_damaged_follower_does_not_matter(kind: Damage) {
    let mut random = Random::seeded();
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 600).await;
    let damaged = cluster.follower().await;
    cluster.kill(&damaged).await;
    damage(&cluster, &damaged, kind, &mut random);
    let began = Instant::now();
    cluster.start_node(&damaged).await;
    notices(&cluster, &damaged).await;
    wait_until("it has everything again", Duration::from_secs(30), async || {
        let log = cluster.log(&damaged);
        log.contains(BACK).then_some(()).ok_or(log)
    })
    .await;
    load.progress(began, 300).await;
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn a_follower_whose_log_lost_its_end_gets_it_again() {
    a_damaged_follower_does_not_matter(Damage::CutEnd).await;
}

#[tokio::test]
async fn a_follower_whose_log_has_a_wrong_bit_gets_it_again() {
    a_damaged_follower_does_not_matter(Damage::FlipBit).await;
}

/// The worst case: the damaged node is one of the two that acknowledged, the other is down, and the third never
/// heard of it. If the damaged node helped the third to lead, everything acknowledged would be gone.
async fn a_damaged_witness_does_not_help_to_forget(kind: Damage) {
    let mut random = Random::seeded();
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<&str> = ALL.into_iter().filter(|name| *name != leader).collect();
    let (witness, ignorant) = (others[0], others[1]);
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 100).await;
    cluster.kill(ignorant).await;
    load.progress(Instant::now(), 1000).await;
    let book = load.stop().await;
    cluster.kill(witness).await;
    cluster.kill(&leader).await;
    damage(&cluster, witness, kind, &mut random);
    cluster.start_node(witness).await;
    cluster.start_node(ignorant).await;
    notices(&cluster, witness).await;
    let leaders = Leaders::watch(&cluster);
    let patient = cluster.client().with_deadline(Duration::from_secs(4));
    let put = patient.put("after", "damage").await;
    assert!(
        put.is_err(),
        "a majority that has forgotten acknowledges: {put:?}"
    );
    assert_eq!(
        leaders.stop().await,
        Vec::<u64>::new(),
        "a majority that has forgotten has a leader"
    );
    cluster.start_node(&leader).await;
    for name in ALL {
        cluster.wait_for_state(name, "running").await;
    }
    verify(&cluster, &ALL, book).await;
}

#[tokio::test]
async fn a_witness_whose_log_lost_its_end_does_not_help_to_forget() {
    a_damaged_witness_does_not_help_to_forget(Damage::CutEnd).await;
}

#[tokio::test]
async fn a_witness_whose_log_has_a_wrong_bit_does_not_help_to_forget() {
    a_damaged_witness_does_not_help_to_forget(Damage::FlipBit).await;
}
