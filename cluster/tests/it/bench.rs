//! `menagerie bench`: the generators work and tell the truth about errors. No figure is judged here.
//! Invariant: nothing here depends on how fast the machine is.

use std::process::{Command as Blocking, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::{Cluster, signal};

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
            .run(&[
                "bench",
                "failover",
                "--running",
                "--kills",
                "1",
                "--how",
                how,
                "--json",
            ])
            .await
            .json();
        assert_eq!(report["faults"].as_array().unwrap().len(), 1, "{report}");
        assert!(report["max_ms"].as_f64().unwrap() > 0.0, "{report}");
    }
    for name in ["n1", "n2", "n3"] {
        cluster.wait_for_state(name, "running").await;
    }
}

/// What of a row can be divided by something that means the same.
fn has_ratios(row: &Value, beside_etcd: bool) {
    // Both keep to a rate that was ordered.
    let at_their_own_rate = beside_etcd && row["rate"].is_null();
    assert_eq!(row["to_etcd"].is_number(), at_their_own_rate, "{row}");
    for ratio in ["p50_to_etcd", "p99_to_etcd", "cpu_to_etcd"] {
        assert_eq!(row[ratio].is_number(), beside_etcd, "{ratio} of {row}");
    }
    assert_eq!(row["to_synced"].is_number(), row["name"] == "put-1", "{row}");
}

/// Every kind of work, beside etcd where there is one.
#[tokio::test]
async fn the_comparison_measures_every_work_and_writes_a_report() {
    let cluster = Cluster::new(1);
    let cases = "put-1,put-16,get-1,put-4k-64,mix-64,counter-64,txn-10-64,range-1000,watch-500,open-put-1000";
    let arguments = [
        "--json",
        "bench",
        "--only",
        cases,
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--without-services",
        "--out",
        "report",
    ];
    let report = cluster.run(&arguments).await.json();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), cases.split(',').count(), "{report}");
    let beside_etcd = report["etcd_version"].is_string();
    let left_out = report["left_out"].to_string();
    assert_ne!(beside_etcd, left_out.contains("etcd"), "{left_out}");
    for row in rows {
        assert_eq!(row["menagerie"]["errors"], 0, "{row}");
        assert!(
            row["menagerie"]["cpu_us_per_operation"]["median"]
                .as_f64()
                .unwrap()
                > 0.0,
            "{row}"
        );
        has_ratios(row, beside_etcd);
        let sides = ["menagerie", "etcd"].into_iter();
        for side in sides.filter(|side| row[*side].is_object()) {
            let generator = row[side]["generator_us_per_operation"]["median"].as_f64();
            assert!(generator.unwrap() > 0.0, "{row}");
        }
        for round in row["menagerie"]["rounds"].as_array().unwrap() {
            let counted = round["figures"]["operations"].as_u64().unwrap();
            assert!(round["operations_in_all"].as_u64().unwrap() >= counted, "{round}");
            assert_eq!(
                round["leader_at"], 0,
                "the only round begins at the leader: {round}"
            );
        }
    }
    let rate = rows.iter().find(|row| row["name"] == "open-put-1000").unwrap();
    let rate = rate["menagerie"]["operations_per_s"]["median"].as_f64().unwrap();
    assert!(rate < 1100.0, "an open loop keeps to its rate: {rate}");
    let page = std::fs::read_to_string(cluster.folder().join("report/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("watch-500"), "{page}");
    let left: Vec<_> = std::fs::read_dir(cluster.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with(".arena")),
        "{left:?}"
    );
}

/// The nodes that a comparison in the folder of this cluster has started.
fn nodes_of(cluster: &Cluster) -> Vec<u32> {
    let all = Blocking::new("ps").args(["-ww", "-eo", "pid=,command="]).output();
    let all = String::from_utf8(all.unwrap().stdout).unwrap();
    let folder = cluster.folder().join(".arena-").display().to_string();
    let nodes = all
        .lines()
        .filter(|line| line.contains(&folder) && line.contains(" node --id "));
    nodes
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

/// Runs a comparison whose nodes are killed when so many keys are to be filled in; answers what it said last.
async fn compare_and_lose_the_nodes(cluster: &Cluster, only: &str, keys: u32) -> String {
    let arguments = [
        "bench",
        "--only",
        only,
        "--rounds",
        // Nodes that live until the first round is done do not live until all are.
        "2",
        "--seconds",
        "2",
        "--without-etcd",
        "--without-services",
        "--out",
        "report",
    ];
    let mut command = cluster.command(&arguments);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last = String::new();
    while last != format!("{keys} keys are filled in") {
        last = told.next_line().await.unwrap().expect("the nodes are ready");
    }
    let nodes = nodes_of(cluster);
    assert_eq!(nodes.len(), 3, "{nodes:?}");
    for node in nodes {
        signal(node, "KILL");
    }
    while let Some(line) = told.next_line().await.unwrap() {
        last = line;
    }
    let ended = child.wait().await.unwrap();
    assert_eq!(ended.code(), Some(1), "{last}");
    last
}

/// What took so long until then is not thrown away.
#[tokio::test]
async fn a_case_that_fails_fails_the_run_and_the_report_has_all_before_it() {
    let cluster = Cluster::new(1);
    let last = compare_and_lose_the_nodes(&cluster, "put-1,get-64-100k", 100_000).await;
    assert!(last.contains("report/report.html"), "{last}");
    let report = std::fs::read(cluster.folder().join("report/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() == 1 && rows[0]["name"] == "put-1", "{report}");
    let left_out = report["left_out"].to_string();
    assert!(left_out.contains("get-64-100k and all after it"), "{left_out}");
}

#[tokio::test]
async fn a_report_of_before_is_not_replaced_by_one_that_has_nothing_to_say() {
    let cluster = Cluster::new(1);
    let folder = cluster.folder().join("report");
    std::fs::create_dir(&folder).unwrap();
    let files = ["report.html", "report.json"].map(|name| folder.join(name));
    for file in &files {
        std::fs::write(file, "of before").unwrap();
    }
    let last = compare_and_lose_the_nodes(&cluster, "put-1", 1000).await;
    assert!(
        last.contains("measure put-1; there is nothing to report"),
        "{last}"
    );
    for file in &files {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "of before");
    }
}

#[tokio::test]
async fn a_case_that_is_unknown_is_wrong_usage() {
    let cluster = Cluster::new(1);
    let told = cluster.run(&["bench", "--only", "put-17"]).await.fails(2);
    assert!(told.contains("put-16"), "{told}");
}

#[tokio::test]
async fn failover_takes_leaders_away_on_servers_of_its_own() {
    let cluster = Cluster::new(1);
    let arguments = [
        "--json",
        "bench",
        "failover",
        "--kills",
        "1",
        "--how",
        "kill,term,pause",
        "--without-etcd",
        "--out",
        "report",
    ];
    let report = cluster.run(&arguments).await.json();
    let kinds = report["kinds"].as_array().unwrap();
    assert_eq!(kinds.len(), 3, "{report}");
    for kind in kinds {
        let fault = &kind["menagerie"]["faults"][0];
        assert!(
            fault["recovered"] == true && fault["gap_ms"].as_f64().unwrap() > 0.0,
            "{kind}"
        );
        assert!(fault["gap_after_heal_ms"].as_f64().unwrap() > 0.0, "{kind}");
    }
    let goals = report["goals"].as_array().unwrap();
    assert_eq!(
        goals.len(),
        4,
        "the gaps of each kind, and failed requests: {report}"
    );
    for goal in goals {
        assert!(goal["what"].is_string() && goal["reached"].is_boolean(), "{goal}");
        assert!(
            goal["measured"].is_number() && goal["wanted"].is_number(),
            "{goal}"
        );
        assert_eq!(goal["at_most"], true, "{goal}");
    }
    let folder = cluster.folder().join("report");
    let written = std::fs::read(folder.join("failover.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), report);
    let chart = std::fs::read_to_string(folder.join("failover.svg")).unwrap();
    assert!(
        chart.starts_with("<svg") && chart.contains("menagerie"),
        "{chart}"
    );
}
