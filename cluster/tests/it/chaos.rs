//! `menagerie chaos`: a short run with a fixed seed, and only of the faults that were asked for.
//! Invariant: nothing here depends on how fast the machine is; what it does not let us break is left out and said.

use std::process::Stdio;

use tokio::process::Command;

use crate::harness::{BINARY, Cluster, Ran};

/// Kinds of fault that need nothing but processes.
const ALWAYS: [&str; 9] = [
    "kill-leader",
    "kill-follower",
    "kill-two",
    "kill-all",
    "pause-leader",
    "pause-follower",
    "rolling-restart",
    "membership",
    "overload",
];

/// A run of these faults alone, whose verdict is JSON.
fn only<'a>(faults: &'a str, seed: &'a str, minutes: &'a str) -> Vec<&'a str> {
    let run = ["--json", "chaos", "--seed", seed, "--minutes", minutes];
    [&run[..], &["--only", faults]].concat()
}

#[tokio::test]
async fn only_the_faults_that_are_asked_for_happen() {
    let cluster = Cluster::new(1);
    let faults = ALWAYS[4..6].join(",");
    let verdict = cluster.run(&only(&faults, "3", "0.1")).await.json();
    let faults = verdict["faults"].as_object().unwrap();
    assert!(
        !faults.is_empty() && faults.keys().all(|word| ALWAYS[4..6].contains(&word.as_str())),
        "{verdict}"
    );
    // It says before all else how far it went.
    let summary = verdict["summary"].as_str().unwrap();
    assert!(summary.starts_with("passed, as far as it went: "), "{summary}");
    assert!(
        summary.contains("not asked for: kill-leader, kill-follower"),
        "{summary}"
    );
    let told = cluster.run(&["chaos", "--only", "rain"]).await.fails(2);
    for word in ALWAYS {
        assert!(told.contains(word), "{told}");
    }
}

/// Or what an earlier run has found would be taken for its own.
#[tokio::test]
async fn a_run_that_ends_before_its_verdict_leaves_none() {
    let cluster = Cluster::new(1);
    let files = ["verdict.json", "timeline.html"].map(|name| cluster.folder().join("report").join(name));
    std::fs::create_dir(cluster.folder().join("report")).unwrap();
    for file in &files {
        std::fs::write(file, r#"{"passed": true}"#).unwrap();
    }
    // Nobody but root can take the power of a disk away.
    let arguments = [
        "chaos",
        "--no-root",
        "--only",
        "power-loss-of-one",
        "--out",
        "report",
    ];
    let told = cluster.run(&arguments).await.fails(1);
    assert!(told.contains("none of these faults can be caused here"), "{told}");
    for file in &files {
        assert!(!file.exists(), "{}", file.display());
    }
}

/// Links are proxies then, which nobody needs to be root for; all that is said of a cut must hold for them too.
#[tokio::test]
async fn without_root_links_are_broken_all_the_same() {
    const LINKS: [&str; 9] = [
        "leader-cut-off",
        "leader-without-peers",
        "follower-cut-off",
        "ring",
        "one-way",
        "everybody-alone",
        "slow-link",
        "lossy-link",
        "kill-while-cut-off",
    ];
    let cluster = Cluster::new(1);
    let faults = LINKS.join(",");
    let mut arguments = only(&faults, "5", "0.5");
    arguments.push("--no-root");
    let verdict = cluster.run(&arguments).await.json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    let faults = verdict["faults"].as_object().unwrap();
    assert!(!faults.is_empty(), "no link was broken: {verdict}");
    let left_out = verdict["left_out"].to_string();
    assert!(left_out.contains("only proxies"), "{left_out}");
    let summary = verdict["summary"].as_str().unwrap();
    assert!(summary.contains("left out: power loss"), "{summary}");
    let replay = verdict["replay"].as_str().unwrap();
    assert!(replay.ends_with("--no-root"), "{replay}");
}

/// As in a container: who is root there may do much, but not change networks.
#[tokio::test]
async fn who_may_not_make_a_network_breaks_links_all_the_same() {
    const WITHOUT: [&str; 5] = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"];
    let cluster = Cluster::new(1);
    // Only who has the right can give it up; for anybody else it is missing as it is.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(WITHOUT).arg(BINARY);
        command
    } else {
        Command::new(BINARY)
    };
    command
        .args(only("kill-leader", "3", "0.1"))
        .current_dir(cluster.folder())
        .stdin(Stdio::null());
    let verdict = Ran::of(command.output().await.unwrap()).json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    let left_out = verdict["left_out"].to_string();
    assert!(left_out.contains("only proxies"), "{left_out}");
}

/// What the long test does for longer, by every kind of fault and by more seeds.
#[tokio::test]
async fn a_minute_of_faults_breaks_nothing() {
    let cluster = Cluster::new(1);
    let faults = [
        "kill-leader",
        "kill-two",
        "kill-all",
        "pause-leader",
        "pause-follower",
        "rolling-restart",
        "leader-cut-off",
        "leader-without-peers",
        "ring",
        "one-way",
        "power-loss-of-one",
        "power-loss-of-all",
        "slow-sync",
        "clock-jump",
    ];
    let verdict = cluster.run(&only(&faults.join(","), "11", "1")).await.json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    assert_eq!(verdict["violations"], serde_json::json!([]), "{verdict}");
    let of = |field: &str| verdict[field].as_object().map_or(0, serde_json::Map::len);
    assert!(of("faults") >= 4, "hardly anything was broken: {verdict}");
}
