//! `menagerie kv watch` and `kv lease`: what happens while one waits.
//! Invariant: every event once and in order, and keys go with their lease.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Cluster, SOON, lives, signal, wait_until};

#[tokio::test]
async fn watch_prints_one_line_an_event() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let first = client.put("p/a", "1").await.unwrap().revision;
    let second = client.put("p/a", "2").await.unwrap().revision;
    client.put("elsewhere", "x").await.unwrap();
    let third = client.delete("p/a").await.unwrap().revision;
    let from = first.to_string();
    let watch = [
        "kv", "watch", "--prefix", "p/", "--from", &from, "--prev", "--limit", "3",
    ];
    let told = cluster.run(&watch).await.ok();
    let expected = format!("{first} put p/a = 1\n{second} put p/a = 2 (was 1)\n{third} delete p/a (was 2)\n");
    assert_eq!(told, expected);

    let told = cluster
        .run(&["kv", "watch", "p/a", "--from", &from, "--limit", "3", "--json"])
        .await
        .ok();
    let events: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events[1]["event"], "put");
    assert_eq!(events[1]["revision"], second);
    assert_eq!(events[1]["value"], "2");
    assert_eq!(events[2]["event"], "delete");
}

#[tokio::test]
async fn watch_goes_on_when_its_node_dies() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let begin = client.revision().await.unwrap() + 1;
    let mut command = cluster.command(&["kv", "watch", "--prefix", "w/", "--from", &begin.to_string()]);
    let mut watch = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(SOON, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    let mut n = 0;
    for name in ["n1", "n2", "n3"] {
        for _ in 0..5 {
            client.put(&format!("w/{n}"), "x").await.unwrap();
            assert_eq!(next().await, format!("put w/{n} = x"));
            n += 1;
        }
        cluster.kill(name).await;
        client.put(&format!("w/{n}"), "x").await.unwrap();
        assert_eq!(next().await, format!("put w/{n} = x"));
        n += 1;
        cluster.start_node(name).await;
        cluster.wait_for_state(name, "running").await;
    }
}

#[tokio::test]
async fn keys_go_with_their_lease() {
    let cluster = Cluster::start(1).await;
    let lease = cluster.run(&["kv", "lease", "grant", "1h"]).await.ok();
    let lease = lease.trim_end();
    cluster.run(&["kv", "put", "a", "1", "--lease", lease]).await.ok();
    let table = cluster.run(&["kv", "lease", "get", lease]).await.ok();
    assert!(
        table.contains("1 h 0 min") && table.trim_end().ends_with(" a"),
        "{table}"
    );
    let all = cluster.run(&["kv", "lease", "ls", "--json"]).await.json();
    assert_eq!(all.as_array().unwrap().len(), 1);
    let kept = cluster
        .run(&["kv", "lease", "keepalive", lease, "--json"])
        .await
        .json();
    assert_eq!(kept["ttl_ms"], 3_600_000);
    cluster.run(&["kv", "lease", "revoke", lease]).await.ok();
    cluster.run(&["kv", "get", "a"]).await.fails(1);
    for command in ["get", "revoke"] {
        let told = cluster.run(&["kv", "lease", command, lease]).await.fails(1);
        assert!(told.contains("there is no lease"), "{told}");
    }
    let told = cluster
        .run(&["kv", "lease", "keepalive", lease, "--json"])
        .await
        .fails(1);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["code"], "lease-not-found");
}

#[tokio::test]
async fn a_lease_that_nobody_keeps_runs_out() {
    let cluster = Cluster::start(1).await;
    let lease = cluster.run(&["kv", "lease", "grant", "500ms"]).await.ok();
    cluster
        .run(&["kv", "put", "a", "1", "--lease", lease.trim_end()])
        .await
        .ok();
    wait_until(
        "the key goes with its lease",
        Duration::from_secs(10),
        async || {
            let ran = cluster.run(&["kv", "get", "a"]).await;
            if ran.code == Some(1) {
                Ok(())
            } else {
                Err(ran.stdout)
            }
        },
    )
    .await;
}

#[tokio::test]
async fn hold_keeps_a_lease_for_as_long_as_a_command_runs() {
    let cluster = Cluster::start(1).await;
    let put = format!(
        "{} kv put held yes --lease $MENAGERIE_LEASE",
        crate::harness::BINARY
    );
    // Three times the lease's length, so that it would be gone if nobody kept it.
    let check = format!("{} kv get held >seen", crate::harness::BINARY);
    let script = format!("{put} && sleep 6 && {check}");
    cluster
        .run(&["kv", "lease", "hold", "2s", "--", "sh", "-c", &script])
        .await
        .ok();
    assert_eq!(
        std::fs::read_to_string(cluster.folder().join("seen")).unwrap(),
        "yes"
    );
    cluster.run(&["kv", "get", "held"]).await.fails(1);
    let told = cluster
        .run(&["kv", "lease", "hold", "1s", "--", "false"])
        .await
        .fails(1);
    assert!(told.contains("\"false\" failed"), "{told}");
}

/// A script under a lease of three seconds: a shorter one is lost where a slow machine stalls.
fn hold(cluster: &Cluster, script: &str) -> tokio::process::Child {
    let mut command = cluster.command(&["kv", "lease", "hold", "3s", "--", "sh", "-c", script]);
    let command = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().unwrap()
}

/// A line that a script writes into a file.
pub(crate) async fn line(cluster: &Cluster, file: &str) -> String {
    let path = cluster.folder().join(file);
    wait_until(file, SOON, async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.strip_suffix('\n').map(str::to_owned);
        line.ok_or(text)
    })
    .await
}

pub(crate) async fn wait_for_end(pid: u32) {
    wait_until("a process to end", SOON, async || {
        if lives(pid) {
            Err(format!("{pid} lives"))
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_that_takes_its_time_to_end_still_has_its_lease() {
    let cluster = Cluster::start(1).await;
    let binary = crate::harness::BINARY;
    // More than the lease's length after it was told to end.
    let end = format!("sleep 4; {binary} kv get held >seen; exit 0");
    let script = format!(
        "trap '{end}' TERM; {binary} kv put held yes --lease $MENAGERIE_LEASE && echo yes >begun; \
         while :; do sleep 0.05; done"
    );
    let child = hold(&cluster, &script);
    line(&cluster, "begun").await;
    signal(child.id().unwrap(), "TERM");
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let seen = std::fs::read_to_string(cluster.folder().join("seen")).unwrap();
    assert_eq!(seen, "yes");
    cluster.run(&["kv", "get", "held"]).await.fails(1);
}

#[tokio::test]
async fn a_command_ends_with_its_lease_and_with_its_holder() {
    let cluster = Cluster::start(1).await;
    let script = "sleep 600 & echo $! >below; echo $MENAGERIE_LEASE >lease; wait";
    let child = hold(&cluster, script);
    let below = line(&cluster, "below").await.parse().unwrap();
    let lease = line(&cluster, "lease").await;
    cluster.run(&["kv", "lease", "revoke", &lease]).await.ok();
    // What the command has started ends too: it would keep our end of its output open.
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.code() == Some(1) && told.contains("was lost"),
        "{told}"
    );
    wait_for_end(below).await;

    if cfg!(target_os = "linux") {
        let child = hold(&cluster, "echo $$ >own; exec sleep 600");
        let own = line(&cluster, "own").await.parse().unwrap();
        signal(child.id().unwrap(), "KILL");
        wait_for_end(own).await;
    }
}
