//! `menagerie chaos`: a short run with a fixed seed, of the faults that were asked for and of each of them.
//! Invariant: nothing here depends on how fast the machine is; what it does not let us break is said, and fails the run that
//! was asked for it.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value, json};
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

/// For one or two faults: less would leave their clients too little time to have done everything once.
const SHORT: &str = "0.1";

/// A run of these faults alone, whose verdict is JSON.
fn only<'a>(faults: &'a str, seed: &'a str, minutes: &'a str) -> Vec<&'a str> {
    let run = ["--json", "chaos", "--seed", seed, "--minutes", minutes];
    [&run[..], &["--only", faults]].concat()
}

/// The verdict of a run in which each of these faults happened and no other, and nothing was found. It has passed, unless
/// this machine does not let us cause one of them: then it has failed for that alone, and says so.
#[track_caller]
fn demand_each(ran: Ran, faults: &[&str]) -> Value {
    let verdict = serde_json::from_str::<Value>(&ran.stdout);
    let verdict = verdict.unwrap_or_else(|error| panic!("no verdict ({error}): {ran:?}"));
    for nothing in ["violations", "not_caused", "not_reached"] {
        assert_eq!(verdict[nothing], json!([]), "{verdict}");
    }
    let impossible = verdict["impossible"].as_array().unwrap();
    let code = i32::from(!impossible.is_empty());
    assert_eq!(
        (ran.code, &verdict["passed"]),
        (Some(code), &json!(code == 0)),
        "{verdict}"
    );
    let impossible: Vec<&str> = impossible.iter().filter_map(Value::as_str).collect();
    for fault in &impossible {
        assert!(
            ran.stderr.contains("not possible here") && ran.stderr.contains(fault),
            "{ran:?}"
        );
    }
    let happened = verdict["faults"].as_object().unwrap().keys();
    let accounted: BTreeSet<&str> = happened.map(String::as_str).chain(impossible).collect();
    assert_eq!(accounted, faults.iter().copied().collect(), "{verdict}");
    verdict
}

#[tokio::test]
async fn the_faults_that_are_asked_for_happen_each_of_them_and_no_other() {
    let cluster = Cluster::new(1);
    let faults = &ALWAYS[4..6];
    let ran = cluster.run(&only(&faults.join(","), "3", SHORT)).await;
    let verdict = demand_each(ran, faults);
    assert_eq!(verdict["impossible"], json!([]), "{verdict}");
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
    /// No longer than until each of them had its turn.
    const ONCE: &str = "0";
    let cluster = Cluster::new(1);
    let faults = LINKS.join(",");
    let mut arguments = only(&faults, "5", ONCE);
    arguments.push("--no-root");
    let verdict = demand_each(cluster.run(&arguments).await, &LINKS);
    assert_eq!(verdict["impossible"], json!([]), "{verdict}");
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
        .args(only("kill-leader", "3", SHORT))
        .current_dir(cluster.folder())
        .stdin(Stdio::null());
    let verdict = demand_each(Ran::of(command.output().await.unwrap()), &["kill-leader"]);
    let left_out = verdict["left_out"].to_string();
    assert!(left_out.contains("only proxies"), "{left_out}");
}

/// What the long test does for longer, by every kind of fault and by more seeds. These are few enough that a minute is
/// mostly enough for each of them.
#[tokio::test]
async fn a_minute_of_faults_breaks_nothing() {
    const FAULTS: [&str; 10] = [
        "kill-leader",
        "kill-two",
        "pause-leader",
        "rolling-restart",
        "leader-without-peers",
        "ring",
        "one-way",
        "power-loss-of-all",
        "slow-sync",
        "clock-jump",
    ];
    let cluster = Cluster::new(1);
    let ran = cluster.run(&only(&FAULTS.join(","), "11", "1")).await;
    demand_each(ran, &FAULTS);
}
