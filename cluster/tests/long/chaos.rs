//! `menagerie chaos` with every kind of fault there is, by seeds that stay and by one that is new each time.
//! Invariant: a run that could not cause a fault has not passed.

use std::collections::BTreeSet;

use crate::harness::Cluster;
use crate::load::say;

const SEEDS: [Option<&str>; 3] = [Some("1"), Some("7"), None];
const MINUTES: &str = "3";
/// So many kinds of fault there are.
const KINDS: usize = 34;

#[tokio::test]
async fn all_faults_by_three_seeds_break_nothing() {
    let cluster = Cluster::new(1);
    for seed in SEEDS {
        let mut arguments = vec!["--json", "chaos", "--minutes", MINUTES];
        if let Some(seed) = seed {
            arguments.extend(["--seed", seed]);
        }
        let verdict = cluster.run(&arguments).await.json();
        say(&format!(
            "{}: {} in {} histories",
            verdict["replay"], verdict["operations"], verdict["histories"]
        ));
        assert_eq!(verdict["passed"], true, "{verdict}");
        assert_eq!(verdict["left_out"], serde_json::json!([]), "{verdict}");
        assert_eq!(verdict["not_caused"], serde_json::json!([]), "{verdict}");
        assert_eq!(verdict["not_reached"], serde_json::json!([]), "{verdict}");
        let faults = verdict["faults"].as_object().unwrap();
        assert_eq!(faults.len(), KINDS, "{verdict}");
    }
}

/// Each step towards the disk is there for a reason: ending right before or behind any of them must lose nothing.
#[tokio::test]
async fn nodes_that_end_at_every_step_lose_nothing() {
    /// So many different steps must have been the last one, in their folder.
    const PLACES: usize = 10;
    /// The log, the state, and what is installed or handed on.
    const FOLDERS: [&str; 3] = ["raft/db", "sm/", "snapshots"];
    let cluster = Cluster::new(1);
    let only = "kill-at-step,power-loss-at-step";
    let arguments = ["--json", "chaos", "--minutes", "4", "--only", only];
    let verdict = cluster.run(&arguments).await.json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    assert_eq!(verdict["left_out"], serde_json::json!([]), "{verdict}");
    assert_eq!(verdict["not_caused"], serde_json::json!([]), "{verdict}");
    let events = verdict["events"].as_array().unwrap();
    let places: BTreeSet<String> = events.iter().map(|event| place(&event["what"])).collect();
    say(&format!(
        "{}: {} ends: {places:#?}",
        verdict["replay"],
        events.len()
    ));
    assert!(places.len() >= PLACES, "{places:?}");
    for folder in FOLDERS {
        assert!(places.iter().any(|place| place.contains(folder)), "{places:?}");
    }
}

/// The leader's disk until it takes no writes, and a follower's to the last byte, which mostly ends it.
#[tokio::test]
async fn disks_that_fill_up_break_nothing() {
    /// By which the first two are not of the same kind.
    const SEED: &str = "3";
    let cluster = Cluster::new(1);
    let only = ["--only", "disk-full", "--minutes", "1", "--seed", SEED];
    let arguments = [&["--json", "chaos"][..], &only].concat();
    let verdict = cluster.run(&arguments).await.json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    assert_eq!(verdict["left_out"], serde_json::json!([]), "{verdict}");
    let events = verdict["events"].as_array().unwrap();
    for words in ["was full, and it refused writes", "was full to the last byte"] {
        let happened = |event: &serde_json::Value| event["what"].as_str().unwrap().contains(words);
        assert!(events.iter().any(happened), "{verdict}");
    }
}

/// The step and its path, without the numbers of files.
fn place(what: &serde_json::Value) -> String {
    let what = what.as_str().unwrap();
    let (_, place) = what
        .split_once(" before ")
        .or_else(|| what.split_once(" behind "))
        .unwrap();
    place.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}
