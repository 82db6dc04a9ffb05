//! Nodes of the previous program are replaced by this one, one after the other, while clients work.
//! Invariant: the test has the previous program, or fails; `.ci/previous` builds it.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use kvstore_client::wire::cluster::Role;
use tokio::process::{Child, Command};

use crate::ALL;
use crate::harness::{BINARY, Cluster, SOON, signal, wait_until};
use crate::load::{Load, Plan, say, verify};

fn previous() -> PathBuf {
    let path = std::env::var_os("MENAGERIE_PREVIOUS").map(PathBuf::from);
    let path = path.expect("MENAGERIE_PREVIOUS names no program; `make test-long` sets it");
    assert!(path.is_file(), "there is no program at {}", path.display());
    path
}

/// What every version understands.
fn write_plain_config(cluster: &Cluster) {
    use std::fmt::Write as _;
    let mut text = format!(
        "data = \"{}\"\n[console]\naddress = \"\"\n",
        cluster.data().display()
    );
    // A snapshot or two falls into the test.
    text.push_str("[store]\nsnapshot_log_entries = 300\nlog_keep_entries = 50\n");
    for node in &cluster.config.nodes {
        let (id, client, peer) = (node.id, &node.client, &node.peer);
        writeln!(
            text,
            "[[node]]\nid = {id}\nclient = \"{client}\"\npeer = \"{peer}\"\nrole = \"voter\""
        )
        .unwrap();
    }
    std::fs::write(cluster.folder().join("cluster.toml"), text).unwrap();
}

fn start(cluster: &Cluster, binary: &std::path::Path, id: u64) -> Child {
    let logs = cluster.data().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let log = File::options()
        .create(true)
        .append(true)
        .open(logs.join(format!("n{id}.log")))
        .unwrap();
    Command::new(binary)
        .args(["node", "--id", &id.to_string()])
        .current_dir(cluster.folder())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// All members follow or lead, and none lacks much.
async fn wait_until_whole(cluster: &Cluster) {
    let client = cluster.client();
    wait_until("all members are there", SOON, async || {
        let seen = client.cluster().await.map_err(|error| error.to_string())?;
        let whole = |role| matches!(role, Role::Leader | Role::Follower);
        let there = seen
            .members
            .iter()
            .all(|member| whole(member.role) && member.lag.is_none_or(|lag| lag < 100));
        if seen.members.len() == 3 && there {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_rolling_upgrade_loses_nothing_and_refuses_nobody() {
    let previous = previous();
    let cluster = Cluster::new(3);
    write_plain_config(&cluster);
    let mut nodes: Vec<Child> = Vec::new();
    for id in 1..=3 {
        nodes.push(start(&cluster, &previous, id));
        // The first makes the secrets of all.
        wait_until("the secrets are there", SOON, async || {
            let there = cluster.data().join("secrets.toml").is_file();
            if there {
                Ok(())
            } else {
                Err("no secrets".to_owned())
            }
        })
        .await;
    }
    wait_until_whole(&cluster).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 500).await;
    for (id, node) in (1..=3).zip(&mut nodes) {
        let asked = Instant::now();
        signal(node.id().unwrap(), "TERM");
        let ended = node.wait().await.unwrap();
        assert!(
            ended.success(),
            "the previous program of n{id} ended with {ended}"
        );
        *node = start(&cluster, BINARY.as_ref(), id);
        wait_until_whole(&cluster).await;
        load.progress(Instant::now(), 300).await;
        say(&format!(
            "n{id} upgraded, longest gap {:?}",
            load.longest_gap(asked)
        ));
    }
    verify(&cluster, &ALL, load.stop().await).await;
}
