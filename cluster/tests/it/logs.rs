//! Logs: one file a process, rotated, printed for people and for programs, followed across a rotation.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::harness::{Cluster, SOON, wait_until};

#[tokio::test]
async fn each_process_has_a_log_that_people_and_programs_can_read() {
    let cluster = Cluster::start(2).await;
    let told = cluster.run(&["logs", "n1", "-n", "1000"]).await.ok();
    assert!(told.contains(" INFO  ") && told.contains("serving"), "{told}");
    assert!(!told.contains('{'), "{told}");
    let all = cluster.run(&["logs"]).await.ok();
    assert!(all.contains("\nn2 ") || all.starts_with("n2 "), "{all}");
    let lines = cluster.run(&["logs", "n2", "-n", "2", "--json"]).await.ok();
    assert_eq!(lines.lines().count(), 2);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["process"], "n2");
    }
    let told = cluster.run(&["logs", "n9"]).await.fails(2);
    assert_eq!(
        told,
        "menagerie: there is no process \"n9\"; there are: n1, n2, supervisor\n"
    );
}

#[tokio::test]
async fn before_the_first_start_there_is_nothing_to_read() {
    let cluster = Cluster::new(1);
    let told = cluster.run(&["logs"]).await.fails(1);
    assert!(told.contains("nothing is logged"), "{told}");
}

#[tokio::test]
async fn a_log_that_has_grown_too_large_makes_room() {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let cluster = Cluster::new(1);
    let logs = cluster.data().join("logs");
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(&logs).unwrap();
    let line = format!("{}\n", "x".repeat(1023));
    std::fs::write(logs.join("n1.log"), line.repeat(8 * 1024)).unwrap();
    std::fs::write(logs.join("n1.log.1"), "older").unwrap();
    cluster.up().await;
    assert_eq!(std::fs::metadata(logs.join("n1.log.1")).unwrap().len(), 8 << 20);
    assert_eq!(std::fs::read_to_string(logs.join("n1.log.2")).unwrap(), "older");
    // What the process has said since is in the new one, not in the renamed one that it was started with.
    assert!(cluster.log("n1").contains("serving"));
    let mode = std::fs::metadata(logs.join("n1.log"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads it");
}

struct Followed {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Followed {
    async fn next(&mut self) -> String {
        let line = tokio::time::timeout(SOON, self.lines.next_line()).await;
        line.expect("a line in time").unwrap().unwrap()
    }
}

fn follow(cluster: &Cluster, arguments: &[&str]) -> Followed {
    let mut command = cluster.command(arguments);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Followed { _child: child, lines }
}

#[tokio::test]
async fn following_loses_nothing_when_the_log_is_rotated() {
    let cluster = Cluster::new(1);
    let logs = cluster.data().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let log = logs.join("n1.log");
    std::fs::write(&log, "zero\none\nbegun").unwrap();
    let mut followed = follow(&cluster, &["logs", "n1", "-f", "-n", "1"]);
    assert_eq!(followed.next().await, "one");
    let mut old = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    writeln!(old, " and ended").unwrap();
    assert_eq!(followed.next().await, "begun and ended");
    std::fs::rename(&log, logs.join("n1.log.1")).unwrap();
    writeln!(old, "the last of the old one").unwrap();
    std::fs::write(&log, "the first of the new one\n").unwrap();
    assert_eq!(followed.next().await, "the last of the old one");
    assert_eq!(followed.next().await, "the first of the new one");
}

#[tokio::test]
async fn status_can_be_watched() {
    let cluster = Cluster::start(1).await;
    let mut watched = follow(&cluster, &["status", "--watch", "--json"]);
    let first: Value = serde_json::from_str(&watched.next().await).unwrap();
    assert_eq!(first["processes"][0]["state"], "running");
    cluster.kill("n1").await;
    wait_until("the watch tells of the kill", SOON, async || {
        let line: Value = serde_json::from_str(&watched.next().await).unwrap();
        if line["processes"][0]["state"] == "killed" {
            Ok(())
        } else {
            Err(line.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn the_log_of_the_supervisor_keeps_why_the_last_one_ended() {
    let cluster = Cluster::start(1).await;
    cluster.down().await;
    let path = cluster.data().join("logs/supervisor.log");
    let first = std::fs::read_to_string(&path).unwrap();
    assert!(!first.is_empty());
    let _taken = std::net::TcpListener::bind(cluster.address("n1")).unwrap();
    // What each run says is of that run alone.
    let told = cluster.run(&["up", "--detach"]).await.fails(2);
    assert!(told.contains("is taken by"), "{told}");
    assert_eq!(cluster.run(&["up", "--detach"]).await.fails(2), told);
    let now = std::fs::read_to_string(&path).unwrap();
    assert!(now.starts_with(&first), "{now}");
    assert_eq!(now.matches("is taken by").count(), 2, "{now}");
}
