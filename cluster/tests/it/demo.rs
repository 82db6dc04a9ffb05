//! `menagerie demo`: it tells the truth, works on what runs or starts it, and leaves things as they were.

use serde_json::Value;

use crate::harness::Cluster;

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
    let cluster = Cluster::new(3);
    holds(&cluster.run(&["demo", "failover", "--json"]).await.json());
    let told = cluster.run(&["status"]).await.fails(1);
    assert!(told.contains("nothing runs"), "{told}");
}

#[tokio::test]
async fn failover_leaves_a_running_system_running() {
    let cluster = Cluster::start(3).await;
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
}

#[tokio::test]
async fn failover_needs_three_nodes() {
    let cluster = Cluster::start(1).await;
    let told = cluster.run(&["demo", "failover"]).await.fails(1);
    assert!(told.contains("at least three nodes"), "{told}");
    assert_eq!(cluster.state("n1").await, "running");
}
