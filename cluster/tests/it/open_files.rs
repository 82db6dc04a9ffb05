//! Limits of open files: a low soft one is raised, and where the hard one is low, connections leave to the databases what
//! those need. Linux only, since what a process may open is read from `/proc`.

#![cfg(target_os = "linux")]

use std::process::Stdio;

use service::open_files;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::doctor::verdict;
use crate::harness::{BINARY, Cluster, Ran, SOON};

/// A run of the binary, and of all that it starts, under this option of `ulimit`.
async fn limited(cluster: &Cluster, limit: &str, arguments: &[&str]) -> Ran {
    let line = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &line, BINARY]).args(arguments);
    command.current_dir(cluster.folder()).stdin(Stdio::null());
    Ran::of(command.env_remove("MENAGERIE_TOKEN").output().await.unwrap())
}

/// The soft and the hard limit of a process.
async fn limits_of(cluster: &Cluster, name: &str) -> (u64, u64) {
    let pid = cluster.pid(name).await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap().split_whitespace();
    let mut next = || numbers.next().unwrap().parse().unwrap();
    (next(), next())
}

#[tokio::test]
async fn a_soft_limit_is_raised_as_far_as_it_may_be() {
    let cluster = Cluster::new(1);
    limited(&cluster, "-Sn 1024", &["up", "--detach"]).await.ok();
    let (soft, hard) = limits_of(&cluster, "n1").await;
    assert!(hard > 1024, "there is nothing to raise");
    assert_eq!(soft, hard.min(1 << 20));
}

#[tokio::test]
async fn who_connects_more_often_than_there_are_files_ends_no_node() {
    const FILES: usize = 1200;
    // Every second put fills it, so that tables are written again and again.
    let cluster = Cluster::with(1, |config| config.store.memtable_mib = 1);
    limited(&cluster, &format!("-n {FILES}"), &["up", "--detach"])
        .await
        .ok();
    assert_eq!(limits_of(&cluster, "n1").await, (FILES as u64, FILES as u64));
    let pid = cluster.pid("n1").await;
    let client = cluster.client().with_deadline(SOON);
    client.put("greeting", "hello").await.unwrap();
    // Of so many, the ends on this side need files as well.
    open_files::raise();
    let mut idle = Vec::new();
    for _ in 0..FILES + 100 {
        idle.push(TcpStream::connect(cluster.address("n1")).await.unwrap());
    }
    for n in 0..16 {
        let value = vec![b'x'; 1 << 19];
        client.put(&format!("pets/{n}"), value).await.unwrap();
    }
    let read = client.get("greeting").await.unwrap().unwrap();
    assert_eq!(read.bytes(), "hello");
    // Whoever says nothing is not waited for, so all of them end.
    let mut refused = 0;
    for mut stream in idle {
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        refused += usize::from(told.contains("Too many connections are open"));
    }
    assert!(refused > 0, "all were taken");
    let process = cluster.process("n1").await;
    assert_eq!(
        (process["restarts"].as_u64(), cluster.pid("n1").await),
        (Some(0), pid)
    );
    let log = cluster.log("n1");
    assert_eq!(log.matches("fewer connections are taken").count(), 1, "{log}");
}

#[tokio::test]
async fn the_doctor_says_what_a_low_limit_costs() {
    let cluster = Cluster::new(1);
    for (limit, expected) in [("-n 1200", "bad"), ("-n 4096", "warning")] {
        let ran = limited(&cluster, limit, &["--json", "doctor"]).await;
        let found: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(verdict(&found, "open files"), expected, "{limit}");
    }
}
