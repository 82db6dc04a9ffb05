//! The lines of `petstore/EXERCISES.md` and the calls of `README.md`, run as they stand against the system that
//! `cluster.toml` starts. Invariant: a line that no longer works fails here, so that nobody learns from one that does not.

use std::os::unix::fs::symlink;
use std::time::Duration;

use service::config::{self, ShopAuth};
use tokio::process::Command;

use crate::harness::{BINARY, Cluster, Ran, free_ports, wait_until};

const LESSON: &str = include_str!("../../../petstore/EXERCISES.md");
const README: &str = include_str!("../../../README.md");
const CONFIG: &str = include_str!("../../../cluster.toml");
/// What stands in the file, so that each can be given a free port in its place.
const PORTS: [&str; 19] = [
    "7001", "7002", "7003", "7101", "7102", "7103", "4001", "4002", "3001", "3002", "8000", "5001", "5002",
    "5003", "5004", "5005", "6001", "3010", "3020",
];
/// Streams have no end; so long they are listened to.
const STREAM: &str = "2";
/// What curl ends with when the answer says no.
const REFUSED: i32 = 22;
const PATIENCE: Duration = Duration::from_mins(1);

struct Line {
    text: &'static str,
    /// Whether the lesson is that it fails.
    refused: bool,
}

/// Every command of the table, in its order.
fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for row in LESSON.lines().filter(|line| line.starts_with('|')) {
        let parts: Vec<&str> = row.split('`').collect();
        for pair in parts.chunks_exact(2) {
            if pair[1].starts_with("curl ") || pair[1].starts_with("menagerie ") {
                lines.push(Line {
                    text: pair[1],
                    refused: pair[0].ends_with("refused: "),
                });
            }
        }
    }
    lines
}

fn translated(text: &str, ports: &[u16]) -> String {
    PORTS
        .iter()
        .zip(ports)
        .fold(text.to_owned(), |text, (known, free)| {
            text.replace(&format!("127.0.0.1:{known}"), &format!("127.0.0.1:{free}"))
        })
}

async fn run(cluster: &Cluster, line: &str) -> Ran {
    let tools = cluster.folder().join("bin");
    let endless = line.contains("curl -N") || line.contains("kv watch");
    let script =
        format!("curl() {{ command curl --silent --show-error --fail-with-body \"$@\"; }}\n{line}\n");
    let mut command = if endless {
        let mut command = Command::new("timeout");
        command.args([STREAM, "bash", "-c"]).arg(line);
        command
    } else {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script);
        command
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let command = command
        .current_dir(cluster.folder())
        .env("PATH", format!("{}:{path}", tools.display()));
    let mut ran = Ran::of(command.output().await.unwrap());
    if endless && ran.code == Some(124) {
        ran.code = Some(0);
    }
    ran
}

/// The lesson leaves it to the student to find out which node it was.
async fn start_who_was_killed(cluster: &Cluster) {
    let status = cluster.status().await;
    for process in status["processes"].as_array().unwrap() {
        if process["state"] == "killed" {
            let name = process["name"].as_str().unwrap();
            cluster.run(&["start", name, "--wait"]).await.ok();
        }
    }
}

/// Whatever a line breaks, it or a later one also makes whole again.
async fn until_all_run(cluster: &Cluster) {
    wait_until("all to run", PATIENCE, async || {
        let status = cluster.status().await;
        let mut processes = status["processes"].as_array().unwrap().iter();
        let all = processes.all(|process| process["state"] == "running");
        all.then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
}

/// The system on these ports in the place of those in the file.
async fn system(ports: &[u16], auth: ShopAuth) -> Cluster {
    let mut parsed = config::parse(&translated(CONFIG, ports), "cluster.toml").unwrap();
    parsed.shop.auth = auth;
    let cluster = Cluster::with(1, |config| {
        config.nodes = parsed.nodes;
        config.payment = parsed.payment;
        config.shop = parsed.shop;
        config.gateway = parsed.gateway;
        config.models = parsed.models;
        config.consensus = parsed.consensus;
        config.mirrors = parsed.mirrors;
    });
    let tools = cluster.folder().join("bin");
    std::fs::create_dir(&tools).unwrap();
    symlink(BINARY, tools.join("menagerie")).unwrap();
    cluster.up().await;
    cluster
}

/// What the README has one type to a shell that can be checked by its end: calls, and what sets a variable for them.
fn calls() -> Vec<String> {
    let blocks = README.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    let mut calls: Vec<String> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match calls.last_mut().filter(|call| is_unfinished(call)) {
            Some(call) => *call = format!("{call}\n{line}"),
            None => calls.push(line.to_owned()),
        }
    }
    let begins = [
        "curl ",
        "TOKEN=",
        "LEADER=",
        "menagerie kill ",
        "menagerie start ",
        "menagerie pause ",
        "menagerie kv put ",
        "menagerie kv get ",
        "menagerie check",
    ];
    calls.retain(|call| begins.iter().any(|begin| call.starts_with(begin)) && !call.contains("https://"));
    calls
}

fn is_unfinished(call: &str) -> bool {
    call.ends_with('\\') || !call.matches('\'').count().is_multiple_of(2)
}

#[tokio::test]
async fn every_call_of_the_readme_works() {
    let ports = free_ports(PORTS.len());
    let cluster = system(&ports, ShopAuth::default()).await;
    let calls = calls();
    let counted = |begin: &str| calls.iter().filter(|call| call.starts_with(begin)).count();
    assert!(
        counted("curl ") >= 11 && counted("TOKEN=") == 1,
        "the README was not understood: {calls:#?}"
    );
    let token = calls.iter().find(|call| call.starts_with("TOKEN=")).unwrap();
    let mut leader = String::new();
    for call in &calls {
        let mut text = translated(&format!("{token}\n{leader}\n{call}"), &ports);
        let asks_who_leads = call.starts_with("LEADER=");
        if asks_who_leads {
            text.push_str("\ncode=$?; echo $LEADER; exit $code");
        }
        let ran = wait_until(&text, PATIENCE, async || {
            let ran = run(&cluster, &text).await;
            if ran.code == Some(0) {
                Ok(ran)
            } else {
                Err(format!("{ran:?}"))
            }
        })
        .await;
        // Each line has a shell of its own; what is said of the leader is about the one that led when it was asked for.
        if asks_who_leads {
            leader = format!("LEADER={}", ran.stdout.lines().last().unwrap());
        }
    }
    until_all_run(&cluster).await;
}

/// Of three nodes two have to run, also for whoever has followed every sentence.
#[test]
fn the_readme_starts_whom_it_has_killed_before_it_kills_another() {
    let order = [
        "*Kill the leader*",
        "press *start*",
        "menagerie kill $LEADER",
        "menagerie start $LEADER",
    ];
    let places = order.map(|words| README.find(words).expect(words));
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test]
async fn every_line_of_the_lesson_works() {
    let ports = free_ports(PORTS.len());
    let cluster = system(&ports, ShopAuth::Open).await;
    let lines = lines();
    assert!(
        lines.len() >= 60,
        "the table was not understood: {} lines",
        lines.len()
    );
    assert!(lines.iter().any(|line| line.refused), "something is refused");
    for line in lines {
        let text = translated(line.text, &ports);
        // After a death there is a moment in which nobody answers: a student would press the key again.
        let said = wait_until(&text, PATIENCE, async || {
            let ran = run(&cluster, &text).await;
            match (ran.code, line.refused) {
                (Some(0), false) | (Some(REFUSED), true) => Ok(ran),
                _ => Err(format!("{ran:?}")),
            }
        })
        .await;
        assert!(
            !text.contains("audit") || said.stdout.contains("\"ok\":true"),
            "{said:?}"
        );
        if text.contains("kill leader") {
            start_who_was_killed(&cluster).await;
        }
    }
    until_all_run(&cluster).await;
}
