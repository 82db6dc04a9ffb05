//! `menagerie chaos`: a short run with a fixed seed, and that its verdict tells what really happened.
//! Invariant: nothing here depends on how fast the machine is; what it does not let us break is left out and said.

use serde_json::Value;

use crate::harness::Cluster;

/// Every kind of fault that needs nothing but processes.
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

fn happened(verdict: &Value) -> u64 {
    let counts = verdict["faults"].as_object().unwrap().values();
    counts.filter_map(Value::as_u64).sum()
}

#[tokio::test]
async fn a_short_run_finds_nothing() {
    let cluster = Cluster::new(1);
    let arguments = [
        "--json",
        "chaos",
        "--seed",
        "7",
        "--minutes",
        "1.3",
        "--out",
        "report",
    ];
    let verdict = cluster.run(&arguments).await.json();
    assert_eq!(verdict["passed"], true, "{verdict}");
    assert_eq!(
        verdict["replay"], "menagerie chaos --seed 7 --minutes 1.3",
        "{verdict}"
    );
    assert!(happened(&verdict) >= 8, "{verdict}");
    assert_eq!(
        happened(&verdict),
        verdict["events"].as_array().unwrap().len() as u64
    );
    assert!(verdict["histories"].as_u64().unwrap() > 40, "{verdict}");
    let kept = std::fs::read_to_string(cluster.folder().join("report/verdict.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), verdict);
    let page = std::fs::read_to_string(cluster.folder().join("report/timeline.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("--seed 7"), "{page}");
}

#[tokio::test]
async fn only_the_faults_that_are_asked_for_happen() {
    let cluster = Cluster::new(1);
    let only = ALWAYS[4..6].join(",");
    let arguments = [
        "--json",
        "chaos",
        "--seed",
        "3",
        "--minutes",
        "0.1",
        "--only",
        &only,
    ];
    let verdict = cluster.run(&arguments).await.json();
    let faults = verdict["faults"].as_object().unwrap();
    assert!(
        !faults.is_empty() && faults.keys().all(|word| ALWAYS[4..6].contains(&word.as_str())),
        "{verdict}"
    );
    let told = cluster.run(&["chaos", "--only", "rain"]).await.fails(2);
    for word in ALWAYS {
        assert!(told.contains(word), "{told}");
    }
}
