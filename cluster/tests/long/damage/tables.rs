//! Wrong bits and missing ends in tables of the state, of the log, and in the files of a snapshot.
//! Invariant: the node notices at its start or when it reads, ends with advice, and stays down; what it serves
//! until then is right, and the others go on with everything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Damage, damage_at};
use crate::ALL;
use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Book, Load, Plan, Random, moves_on, say, short_log, verify};

const ADVICE: &str = "menagerie kv member replace";

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// A table that holds this text, and where.
fn table_with(folder: &Path, text: &str) -> (PathBuf, u64) {
    let files = files_in(folder);
    let found = files.iter().filter(|path| is_table(path)).find_map(|path| {
        let content = std::fs::read(path).unwrap();
        let at = content
            .windows(text.len())
            .position(|window| window == text.as_bytes())?;
        Some((path.clone(), at as u64))
    });
    found.unwrap_or_else(|| panic!("no table in {} holds {text:?}: {files:?}", folder.display()))
}

fn state_folder(cluster: &Cluster, name: &str) -> PathBuf {
    let root = cluster.data().join(name).join("sm");
    let current = std::fs::read_to_string(root.join("CURRENT")).unwrap_or_else(|_| "1".to_owned());
    root.join(current.trim())
}

/// Waits until the launcher has given up on it.
async fn given_up(cluster: &Cluster, name: &str) {
    wait_until(
        &format!("{name} stays down"),
        Duration::from_mins(1),
        async || {
            let state = cluster.state(name).await;
            (state == "failed").then_some(()).ok_or(state)
        },
    )
    .await;
}

/// Demands that its log says what was found and what to do, also to a person who tries again.
async fn stays_down(cluster: &Cluster, name: &str, what: &str) {
    given_up(cluster, name).await;
    let log = cluster.log(name);
    assert!(log.contains(what) && log.contains(ADVICE), "{log}");
    cluster.start_node(name).await;
    given_up(cluster, name).await;
}

/// A follower whose state is in tables on its disk, stopped; the others have gone on.
async fn stopped_follower() -> (Cluster, Load, String) {
    let cluster = Cluster::start(3).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 600).await;
    let victim = cluster.follower().await;
    // An orderly end brings the state into tables; the next start brings the log into some too.
    for _ in 0..2 {
        cluster.term(&victim).await;
        cluster.start_node(&victim).await;
        cluster.wait_for_state(&victim, "running").await;
        load.progress(Instant::now(), 100).await;
    }
    cluster.term(&victim).await;
    load.progress(Instant::now(), 100).await;
    (cluster, load, victim)
}

async fn the_others_have_everything(cluster: &Cluster, victim: &str, load: Load) {
    load.progress(Instant::now(), 300).await;
    let rest: Vec<&str> = ALL.into_iter().filter(|name| *name != victim).collect();
    verify(cluster, &rest, load.stop().await).await;
}

#[tokio::test]
async fn a_state_table_with_a_wrong_bit_is_noticed_when_it_is_read() {
    let (cluster, load, victim) = stopped_follower().await;
    let (table, at) = table_with(&state_folder(&cluster, &victim), "value of load/");
    damage_at(&table, at, Damage::FlipBit, &mut Random::seeded());
    cluster.start_node(&victim).await;
    // Whatever it answers before it notices is right.
    let alone = cluster.client_of(vec![cluster.address(&victim).to_owned()]);
    wait_until("the damage is noticed", Duration::from_mins(1), async || {
        if let Ok(scan) = alone.scan("load/").await {
            for kv in scan.kvs.iter().filter(|kv| !kv.key.starts_with("load/counter/")) {
                assert_eq!(kv.bytes(), Book::value_of(&kv.key), "{}", kv.key);
            }
        }
        let log = cluster.log(&victim);
        log.contains("are damaged").then_some(()).ok_or(log)
    })
    .await;
    stays_down(&cluster, &victim, "the tables of this node's state are damaged").await;
    the_others_have_everything(&cluster, &victim, load).await;
}

#[tokio::test]
async fn a_state_table_without_its_end_is_noticed_at_the_start() {
    let (cluster, load, victim) = stopped_follower().await;
    let (table, at) = table_with(&state_folder(&cluster, &victim), "value of load/");
    damage_at(&table, at, Damage::CutEnd, &mut Random::seeded());
    cluster.start_node(&victim).await;
    stays_down(&cluster, &victim, "the tables of this node's state are damaged").await;
    the_others_have_everything(&cluster, &victim, load).await;
}

#[tokio::test]
async fn a_table_of_the_log_with_a_wrong_bit_is_noticed_at_the_start() {
    let (cluster, load, victim) = stopped_follower().await;
    let folder = cluster.data().join(&victim).join("raft/db");
    let tables = files_in(&folder).into_iter().filter(|path| is_table(path));
    let largest = tables.max_by_key(|path| path.metadata().unwrap().len());
    let largest = largest.expect("the log has tables after a restart");
    // The entries come first, what describes them last.
    let middle = largest.metadata().unwrap().len() / 3;
    damage_at(&largest, middle, Damage::FlipBit, &mut Random::seeded());
    cluster.start_node(&victim).await;
    stays_down(&cluster, &victim, "entries of this node's log are damaged").await;
    the_others_have_everything(&cluster, &victim, load).await;
}

/// It leads, and the member that came back needs its snapshot: it must not hand on what is damaged.
#[tokio::test]
async fn a_leader_whose_snapshot_is_damaged_hands_nothing_on() {
    let cluster = short_log().await;
    let load = Load::start(&cluster, Plan::many_entries());
    load.progress(Instant::now(), 300).await;
    let old = cluster.leader().await;
    let others: Vec<&str> = ALL.into_iter().filter(|name| *name != old).collect();
    let (damaged, behind) = (others[0], others[1]);
    cluster.kill(behind).await;
    moves_on(&cluster, &old).await;
    let book = load.stop().await;
    cluster.term(damaged).await;
    let snapshots = cluster.data().join(damaged).join("snapshots");
    let newest = files_in(&snapshots).pop().expect("there is a snapshot");
    let options = files_in(&newest).into_iter().find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("OPTIONS")
    });
    damage_at(&options.unwrap(), 100, Damage::FlipBit, &mut Random::seeded());
    cluster.start_node(damaged).await;
    cluster.wait_for_state(damaged, "running").await;
    cluster.run(&["kv", "leader", "--to", damaged]).await.ok();
    cluster.start_node(behind).await;
    wait_until("the damage is noticed", SOON, async || {
        let log = cluster.log(damaged);
        let noticed = log.contains("the files of this node's snapshot are damaged") && log.contains(ADVICE);
        noticed.then_some(()).ok_or(log)
    })
    .await;
    say(&format!("{damaged} noticed that its snapshot is damaged"));
    cluster.wait_for_state(behind, "running").await;
    verify(&cluster, &[&old, behind], book).await;
}
