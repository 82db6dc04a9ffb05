//! `menagerie bench`: the generators work and tell the truth about errors. No figure is judged here.
//! Invariant: nothing here depends on how fast the machine is.

use crate::harness::Cluster;

#[tokio::test]
async fn every_work_is_measured_without_errors() {
    let cluster = Cluster::start(1).await;
    for work in ["put", "get", "add-one-key", "mix"] {
        let arguments = [
            "bench",
            "kv",
            "--clients",
            "4",
            "--seconds",
            "1",
            "--work",
            work,
            "--json",
        ];
        let report = cluster.run(&arguments).await.json();
        assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    }
    let sum: u64 = cluster
        .run(&["kv", "get", "bench/counter"])
        .await
        .ok()
        .parse()
        .unwrap();
    assert!(sum > 0);
}

#[tokio::test]
async fn errors_are_told_and_fail_the_run() {
    let cluster = Cluster::start(1).await;
    let file = cluster.folder().join("token");
    std::fs::write(&file, "not-a-token-of-this-store").unwrap();
    let arguments = [
        "bench",
        "kv",
        "--clients",
        "2",
        "--seconds",
        "1",
        "--token-file",
        file.to_str().unwrap(),
    ];
    let told = cluster.run(&arguments).await.fails(1);
    assert!(told.contains("status 401"), "{told}");
}

#[tokio::test]
async fn failover_measures_and_heals() {
    let cluster = Cluster::start(3).await;
    for how in ["kill", "term", "pause"] {
        let report = cluster
            .run(&["bench", "failover", "--kills", "1", "--how", how, "--json"])
            .await
            .json();
        assert_eq!(report["faults"].as_array().unwrap().len(), 1, "{report}");
        assert!(report["max_ms"].as_f64().unwrap() > 0.0, "{report}");
    }
    for name in ["n1", "n2", "n3"] {
        cluster.wait_for_state(name, "running").await;
    }
}
