//! Backups: made while writes go on, checked bit by bit, and a new cluster out of one, also when most of the old is lost.
//! Invariant: a restored store answers the same hash as its source at that revision, and the old members know nothing
//! of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kvstore_client::wire::tokens::{Access, Rule};
use serde_json::Value;
use service::config::Role;

use crate::harness::{Cluster, SOON, wait_until};
use crate::load::{Load, Plan};

pub(crate) async fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    cluster.run(&all).await.json()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Who may read, write and enter.
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// All that a client can see at this revision.
async fn hash(cluster: &Cluster, revision: u64) -> String {
    let client = cluster.client();
    client.hash(Some(revision)).await.unwrap().hash
}

/// Moves the secrets of one cluster to another that has not started yet, as its operator would.
fn take_secrets(from: &Path, to: &Cluster) {
    let data = to.data();
    std::fs::create_dir_all(&data).unwrap();
    std::fs::copy(from.join("secrets.toml"), data.join("secrets.toml")).unwrap();
}

pub(crate) async fn filled() -> Cluster {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    for n in 0..50 {
        client.put(&format!("animals/{n}"), format!("{n}")).await.unwrap();
    }
    client.delete("animals/7").await.unwrap();
    client.put("animals/8", "eight").await.unwrap();
    cluster
}

#[tokio::test]
async fn a_new_cluster_begins_with_what_a_backup_holds() {
    let old = filled().await;
    let rules = vec![Rule {
        prefix: "animals/".to_owned(),
        access: Access::Read,
    }];
    let guest = old.client().token_put("guest", rules).await.unwrap();
    let load = Load::start(&old, Plan::default());
    load.progress(std::time::Instant::now(), 100).await;
    let file = old.folder().join("all.mng");
    // What lies beside a backup is not its maker's, whatever its name is.
    let beside = old.folder().join("all.tmp");
    std::fs::write(&beside, "notes").unwrap();
    let made = json(&old, &["kv", "snapshot", text(&file)]).await;
    assert_eq!(std::fs::read(&beside).unwrap(), b"notes");
    assert_eq!(mode(&file), 0o600);
    let book = load.stop().await;
    let from_guest = async |cluster: &Cluster| {
        let url = format!("http://{}/v1/kv/animals/8", cluster.address("n1"));
        let request = cluster.http.get(url).bearer_auth(&guest.token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(from_guest(&old).await, 200);
    let revision = made["revision"].as_u64().unwrap();
    assert_eq!(made["hash"], hash(&old, revision).await.as_str());
    let checked = json(&old, &["kv", "verify", text(&file)]).await;
    assert_eq!(checked["revision"], revision);
    // A backup never replaces one.
    old.run(&["kv", "snapshot", text(&file)]).await.fails(1);

    let new = Cluster::new(3);
    take_secrets(&old.data(), &new);
    let restored = json(&new, &["kv", "restore", text(&file)]).await;
    assert_ne!(restored["new_cluster_id"], made["cluster_id"]);
    assert_eq!(mode(&new.data().join("n1")), 0o700);
    // What is there is not touched.
    new.run(&["kv", "restore", text(&file)]).await.fails(1);
    new.up().await;
    let client = new.client();
    assert_eq!(from_guest(&new).await, 401, "its token is in no backup");
    assert_eq!(hash(&new, revision).await, made["hash"].as_str().unwrap());
    assert_eq!(client.get("animals/7").await.unwrap(), None);
    let eight = client.get("animals/8").await.unwrap().unwrap();
    let before = old.client().get("animals/8").await.unwrap().unwrap();
    assert_eq!(eight, before, "with its revisions");
    assert!(book.acknowledged() > 0);
    // It is a store like any other: all nodes have the same, and one may go.
    client.put("animals/8", "nine").await.unwrap();
    new.run(&["kv", "hash", "--all-nodes"]).await.ok();
    new.kill("leader").await;
    client.put("animals/8", "ten").await.unwrap();
    assert_eq!(
        client.cluster().await.unwrap().cluster_id,
        restored["new_cluster_id"].as_str().unwrap()
    );
}

#[tokio::test]
async fn a_backup_is_made_while_a_node_is_down() {
    let cluster = filled().await;
    cluster.kill(&cluster.follower().await).await;
    // Each begins at a node of its own choice.
    for n in 0..8 {
        let file = cluster.folder().join(format!("{n}.mng"));
        json(&cluster, &["kv", "snapshot", text(&file)]).await;
    }
}

#[tokio::test]
async fn a_member_of_the_old_cluster_finds_no_way_into_the_new_one() {
    let old = filled().await;
    let file = old.folder().join("all.mng");
    json(&old, &["kv", "snapshot", text(&file)]).await;
    old.down().await;
    // The same addresses and secrets, another folder: two new members, and one that was left from the old cluster.
    let mut new = Cluster::with(3, |config| config.nodes.clone_from(&old.config.nodes));
    take_secrets(&old.data(), &new);
    new.run(&["kv", "restore", text(&file), "--nodes", "1,2"])
        .await
        .ok();
    std::fs::rename(old.data().join("n3"), new.data().join("n3")).unwrap();
    let stranger = new.config.nodes.remove(2);
    new.write_config();
    new.up().await;
    new.config.nodes.push(stranger);
    new.write_config();
    let mut process = new.command(&["node", "--id", "3"]);
    let mut child = process.kill_on_drop(true).spawn().unwrap();
    let client = new.client();
    client.put("animals/8", "new").await.unwrap();
    let members = wait_until("a leader without the stranger", SOON, async || {
        let view = client.cluster().await.map_err(|error| error.to_string())?;
        let third = view.members.iter().find(|member| member.id == 3).cloned();
        let applied = third.and_then(|member| member.applied);
        Ok::<_, String>(applied)
    })
    .await;
    assert_eq!(members, None, "it is reached by nobody");
    let alone = new.client_of(vec![new.address("n3").to_owned()]);
    let level = kvstore_client::ReadOptions::default();
    let read = alone
        .with_deadline(std::time::Duration::from_secs(1))
        .read("animals/8", level)
        .await;
    assert!(read.is_err(), "{read:?}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn one_wrong_bit_or_a_missing_end_is_refused() {
    let cluster = filled().await;
    let file = cluster.folder().join("all.mng");
    json(&cluster, &["kv", "snapshot", text(&file)]).await;
    let whole = std::fs::read(&file).unwrap();
    let damaged = cluster.folder().join("damaged.mng");
    let places = [
        0,
        9,
        40,
        whole.len() / 2,
        whole.len() - 41,
        whole.len() - 20,
        whole.len() - 1,
    ];
    for place in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        std::fs::write(&damaged, &bytes).unwrap();
        let refused = cluster.run(&["kv", "verify", text(&damaged)]).await;
        assert_eq!(
            refused.code,
            Some(1),
            "a wrong bit at {place}: {}",
            refused.stdout
        );
    }
    for end in [0, 7, 30, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&damaged, &whole[..end]).unwrap();
        let refused = cluster.run(&["kv", "verify", text(&damaged)]).await;
        assert_eq!(refused.code, Some(1), "cut at {end}");
    }
    let new = Cluster::new(1);
    let mut bytes = whole.clone();
    let middle = whole.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    new.run(&["kv", "restore", text(&damaged)]).await.fails(1);
    assert!(!new.data().join("n1").exists(), "half a node is no node");
}

#[tokio::test]
async fn what_one_survivor_holds_becomes_a_new_cluster() {
    let old = filled().await;
    let client = old.client();
    let revision = client.revision().await.unwrap();
    let wanted = hash(&old, revision).await;
    old.down().await;
    let new = Cluster::new(3);
    take_secrets(&old.data(), &new);
    let (survivor, third) = (old.data().join("n2"), old.data().join("n3"));
    // Nobody said yes, and one voter is one, by whatever names its folder goes.
    let again = survivor.join("raft").join("..");
    let arguments = ["kv", "recover", "--from", text(&survivor), "--from", text(&again)];
    let told = new.run(&arguments).await.fails(1);
    assert!(told.contains("Only 1 of 3 voters are here"), "{told}");
    assert!(!new.data().join("n1").exists());
    // Whichever has the longest log, somebody has to mean it.
    let marks = [&survivor, &third].map(|folder| folder.join("DAMAGED"));
    for mark in &marks {
        std::fs::write(mark, "a table has a wrong bit").unwrap();
    }
    let from = ["--from", text(&survivor), "--from", text(&third)];
    let mut arguments = [&["kv", "recover", "--yes"][..], &from].concat();
    let told = new.run(&arguments).await.fails(1);
    assert!(told.contains("a table has a wrong bit"), "{told}");
    assert!(!new.data().join("n1").exists());
    arguments.push("--even-damaged");
    let told = new.run(&arguments).await;
    assert!(
        told.stderr.contains("2 of 3 voters are here, a majority"),
        "{}",
        told.stderr
    );
    told.ok();
    assert!(survivor.join("raft").exists() && !old.data().join("n2.recovering").exists());
    for mark in marks {
        std::fs::remove_file(mark).unwrap();
    }
    new.up().await;
    assert_eq!(hash(&new, revision).await, wanted);
    new.client().put("animals/9", "again").await.unwrap();
    // The survivors are as they were.
    old.up().await;
    assert_eq!(hash(&old, revision).await, wanted);
}

/// Nobody learns of it only after the long work.
#[tokio::test]
async fn what_is_in_the_way_of_a_new_cluster_is_told_before_anything_is_read() {
    let cluster = Cluster::with(2, |config| config.nodes[1].role = Role::Learner);
    let refused = async |arguments: &[&str]| cluster.run(arguments).await.fails(1);
    let recover = ["kv", "recover", "--yes", "--from", "nowhere"];
    let restore = ["kv", "restore", "nowhere"];
    let promote = ["mirror", "promote", "--from", "nowhere"];
    for node in ["n1", "n2"] {
        let folder = cluster.data().join(node);
        std::fs::create_dir_all(&folder).unwrap();
        let way = format!("{} is there: a cluster is made only", folder.display());
        for command in [&recover[..], &restore, &promote] {
            let told = refused(command).await;
            assert!(told.contains(&way), "{command:?}: {told}");
        }
        std::fs::remove_dir(folder).unwrap();
    }
    let file = cluster.data().join("recovered.mng");
    std::fs::write(&file, "everything").unwrap();
    let told = refused(&recover).await;
    let advice = format!("kv restore {}`", file.display());
    assert!(told.contains(&advice) && told.contains("remove it"), "{told}");
    // Where only some are made, the others are not in the way.
    std::fs::create_dir(cluster.data().join("n2")).unwrap();
    let told = refused(&["kv", "restore", "nowhere", "--nodes", "1"]).await;
    assert!(told.contains("open nowhere"), "{told}");
}

#[tokio::test]
async fn backups_are_made_by_themselves_and_old_ones_go() {
    let cluster = Cluster::with(3, |config| {
        config.backup.every_s = 1;
        config.backup.keep = 2;
    });
    let folder = cluster.data().join("backups");
    cluster.up().await;
    cluster.client().put("animals/1", "one").await.unwrap();
    let files = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("backup-") && !name.contains(".tmp"))
            .collect();
        names.sort();
        names
    };
    let first = wait_until("a backup", SOON, async || {
        files().first().cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    wait_until("the first to make room", SOON, async || {
        let files = files();
        (!files.contains(&first))
            .then_some(())
            .ok_or_else(|| files.join(" "))
    })
    .await;
    let files = files();
    assert!(files.len() <= 2, "{files:?}");
    let newest = folder.join(files.last().unwrap());
    cluster.run(&["kv", "verify", text(&newest)]).await.ok();
    // A node that is killed leaves half a backup, and knows its own when it starts, whether it leads then or not.
    let follower = cluster.follower().await;
    cluster.kill(&follower).await;
    let (own, _made_ms) = first.rsplit_once('-').unwrap();
    let half = |cluster: &str, node: &str| folder.join(format!("{cluster}-1.mng.{node}-0.tmp"));
    let others = [half(own, "n9"), half("backup-another", &follower)];
    let halves = [half(own, &follower), others[0].clone(), others[1].clone()];
    for half in &halves {
        std::fs::write(half, "half").unwrap();
    }
    cluster.start_node(&follower).await;
    wait_until("the node to remove what it had begun", SOON, async || {
        let there = halves.each_ref().map(|half| half.exists());
        (!there[0]).then_some(()).ok_or_else(|| format!("{there:?}"))
    })
    .await;
    assert!(others.iter().all(|half| half.exists()));
}
