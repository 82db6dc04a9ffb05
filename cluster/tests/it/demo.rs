//! `menagerie demo`: it tells the truth, works on what runs or starts it, and leaves things as they were.

use serde_json::Value;

use crate::harness::{Cluster, free_ports};

fn holds(report: &Value) {
    assert_eq!(report["held"], true, "{report}");
    assert_eq!(report["lost"], 0, "{report}");
    assert!(report["acknowledged"].as_u64().unwrap() > 200, "{report}");
    assert!(report["gap_ms"].as_f64().unwrap() > 0.0, "{report}");
    assert_ne!(report["killed"], report["leader"], "{report}");
    let through: Vec<&str> = report["read_back_through"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(through, ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn failover_starts_and_stops_what_it_needs() {
    // The certificates it speaks with are made by what it starts.
    let cluster = Cluster::with(3, |config| config.tls.enabled = true);
    holds(&cluster.run(&["demo", "failover", "--json"]).await.json());
    let told = cluster.run(&["status"]).await.fails(1);
    assert!(told.contains("nothing runs"), "{told}");
}

#[tokio::test]
async fn failover_leaves_a_running_system_as_it_was() {
    let cluster = Cluster::with(3, |config| {
        config.gateway.address = format!("127.0.0.1:{}", free_ports(1)[0]);
    });
    cluster.up().await;
    // It needs the nodes alone.
    cluster.kill("gateway").await;
    let told = cluster.run(&["demo", "failover"]).await.ok();
    for part in [
        "is killed with kill -9",
        "|",
        "█",
        "read back through each node",
        "lost: 0",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    for name in ["n1", "n2", "n3"] {
        assert!(
            told.contains(&format!("through {name}: everything is there")),
            "{told}"
        );
        assert_eq!(cluster.state(name).await, "running");
    }
    assert_eq!(cluster.state("gateway").await, "killed");
}

#[tokio::test]
async fn failover_needs_three_nodes() {
    let cluster = Cluster::start(1).await;
    let told = cluster.run(&["demo", "failover"]).await.fails(1);
    assert!(told.contains("at least three nodes"), "{told}");
    assert_eq!(cluster.state("n1").await, "running");
}

#[tokio::test]
async fn each_fallacy_is_shown_and_every_claim_holds() {
    let cluster = Cluster::new(1);
    let experiments = cluster.run(&["demo", "fallacies", "--json"]).await.json();
    let experiments = experiments.as_array().unwrap();
    let fallacies: Vec<&str> = experiments
        .iter()
        .map(|experiment| experiment["fallacy"].as_str().unwrap())
        .collect();
    let all = [
        "network",
        "latency",
        "bandwidth",
        "security",
        "topology",
        "administrator",
        "cost",
        "homogeneity",
    ];
    assert_eq!(fallacies, all);
    for experiment in experiments {
        let claims = experiment["claims"].as_array().unwrap();
        assert!(claims.len() >= 3, "{experiment}");
        assert!(claims.iter().all(|claim| claim["held"] == true), "{experiment}");
        assert_eq!(experiment["held"], true, "{experiment}");
    }
    let left: Vec<_> = std::fs::read_dir(cluster.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("arena"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Also beside a system that runs, which it leaves alone.
#[tokio::test]
async fn one_fallacy_is_told_in_words() {
    let cluster = Cluster::start(1).await;
    let told = cluster
        .run(&["demo", "fallacies", "--only", "administrator"])
        .await
        .ok();
    for part in [
        "6 of 8. “There is one administrator.”",
        "✓ at once and everywhere the clerk may no longer",
        "Caught by: ",
        "Fallacies: 1. ",
        "all of them held",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!told.contains('✗') && !told.contains("Latency"), "{told}");
    assert_eq!(cluster.state("n1").await, "running");
    let told = cluster
        .run(&["demo", "fallacies", "--only", "gravity"])
        .await
        .fails(2);
    assert!(told.contains("homogeneity"), "{told}");
}
