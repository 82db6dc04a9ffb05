//! `menagerie doctor` before the first start, beside a running cluster, and when something is wrong.

use serde_json::Value;
use service::config::{MirrorEngine, MirrorMode, OnLoss};

use crate::harness::{Cluster, SOON, wait_until};
use crate::mirror::{NAME, with_mirror};

async fn findings(cluster: &Cluster, code: i32) -> Vec<Value> {
    let ran = cluster.run(&["--json", "doctor"]).await;
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

pub(crate) fn verdict(findings: &[Value], what: &str) -> String {
    let found = findings.iter().find(|finding| finding["what"] == what);
    let found = found.unwrap_or_else(|| panic!("nothing about {what}: {findings:?}"));
    if found["verdict"] != "good" {
        assert!(found["advice"].is_string(), "no advice: {found}");
    }
    found["verdict"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_folder_and_a_running_cluster_are_well() {
    let cluster = Cluster::with(3, |config| config.tls.enabled = true);
    let before = findings(&cluster, 1).await;
    assert_eq!(verdict(&before, "ports"), "good");
    assert_eq!(verdict(&before, "certificates"), "bad", "there are none yet");
    cluster.up().await;
    let after = findings(&cluster, 0).await;
    for what in [
        "configuration",
        "secrets",
        "disk space",
        "ports",
        "certificates",
        "clocks",
        "versions",
        "leader",
    ] {
        assert_eq!(verdict(&after, what), "good", "{what}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let mut cluster = with_mirror(MirrorMode::Sync, OnLoss::Degrade, MirrorEngine::Sqlite);
    cluster.config.backup.every_s = 3600;
    cluster.write_config();
    cluster.up().await;
    let gone = cluster.follower().await;
    for name in [gone.as_str(), NAME] {
        cluster.kill(name).await;
    }
    let secrets = cluster.data().join("secrets.toml");
    let found = wait_until(
        "the first backup, and writes without the mirror",
        SOON,
        async || {
            let found = findings(&cluster, 1).await;
            let told = |what| found.iter().find(|finding| finding["what"] == what);
            let copies = ["backups", "mirror mirror-one"]
                .map(|what| told(what).map_or("", |finding| finding["verdict"].as_str().unwrap()));
            (copies == ["good", "warning"])
                .then_some(found.clone())
                .ok_or_else(|| format!("{found:?}"))
        },
    )
    .await;
    assert_eq!(
        verdict(&found, &format!("member {}", gone.trim_start_matches('n'))),
        "bad"
    );
    assert_eq!(verdict(&found, "leader"), "good");
    std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let found = findings(&cluster, 1).await;
    assert_eq!(verdict(&found, "secrets"), "bad");
    std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn nodes_that_hang_are_not_taken_for_none() {
    let cluster = Cluster::start(3).await;
    cluster.pause("n2").await;
    let ran = cluster.run(&["--json", "doctor"]).await;
    let found: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    // The clocks of the others are not off by the time that was waited for it.
    assert_eq!(verdict(&found, "clocks"), "good");
    for what in ["clocks", "versions"] {
        let finding = found.iter().find(|finding| finding["what"] == what).unwrap();
        let said = finding["said"].as_str().unwrap();
        assert!(said.starts_with("2 of 3 nodes"), "{said}");
    }
    for name in ["n1", "n3"] {
        cluster.pause(name).await;
    }
    let found = findings(&cluster, 1).await;
    assert_eq!(verdict(&found, "cluster"), "bad");
}

/// As on another machine, where no supervisor holds the folder.
#[tokio::test]
async fn nodes_that_hang_or_are_strangers_are_not_taken_for_none_where_nobody_holds_the_folder() {
    let cluster = Cluster::with(3, |config| config.tls.enabled = true);
    cluster.up().await;
    let elsewhere = cluster.folder().join("elsewhere");
    let data = ["--json", "--data", elsewhere.to_str().unwrap()];
    let seen = async || {
        let ran = cluster.run(&[&data[..], &["doctor"]].concat()).await;
        let found: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
        verdict(&found, "cluster")
    };
    // An authority of its own.
    cluster.run(&[&data[..], &["certs"]].concat()).await.ok();
    std::fs::copy(
        cluster.data().join("secrets.toml"),
        elsewhere.join("secrets.toml"),
    )
    .unwrap();
    assert_eq!(seen().await, "bad");
    for file in std::fs::read_dir(cluster.data().join("tls")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), elsewhere.join("tls").join(file.file_name())).unwrap();
    }
    for name in ["n1", "n2", "n3"] {
        cluster.pause(name).await;
    }
    assert_eq!(seen().await, "bad");
    for name in ["n1", "n2", "n3"] {
        cluster.kill(name).await;
    }
    assert_eq!(seen().await, "good");
}

#[tokio::test]
async fn a_disk_with_too_little_room_is_bad() {
    let cluster = Cluster::with(3, |config| config.limits.disk_free_bytes_min = 1 << 40);
    std::fs::create_dir_all(cluster.data()).unwrap();
    let found = findings(&cluster, 1).await;
    assert_eq!(verdict(&found, "disk space"), "bad");
}
