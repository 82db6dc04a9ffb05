//! The launcher: up, status, kill, pause, resume, start, restart, down, and what becomes of its processes.
//! Invariant: after every test nothing of its data folder runs.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Cluster, SOON, lives, signal, wait_until};

fn states(status: &Value) -> Vec<(String, String)> {
    let word = |process: &Value, name: &str| process[name].as_str().unwrap().to_owned();
    let processes = status["processes"].as_array().unwrap();
    processes
        .iter()
        .map(|process| (word(process, "name"), word(process, "state")))
        .collect()
}

fn pids(status: &Value) -> Vec<u32> {
    let processes = status["processes"].as_array().unwrap();
    processes
        .iter()
        .filter_map(|process| process["pid"].as_u64())
        .map(|pid| u32::try_from(pid).unwrap())
        .collect()
}

fn supervisor(status: &Value) -> u32 {
    u32::try_from(status["supervisor"].as_u64().unwrap()).unwrap()
}

async fn wait_for_ends(pids: &[u32]) {
    wait_until("all processes end", SOON, async || {
        let left: Vec<_> = pids.iter().filter(|pid| lives(**pid)).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?} live"))
        }
    })
    .await;
}

#[tokio::test]
async fn up_returns_when_all_run_and_down_leaves_nothing() {
    let cluster = Cluster::new(3);
    let told = cluster.run(&["up", "--detach"]).await.ok();
    assert!(told.contains("n3") && told.contains("Try next"), "{told}");

    let status = cluster.status().await;
    let running = ["n1", "n2", "n3"].map(|name| (name.to_owned(), "running".to_owned()));
    assert_eq!(states(&status), running);
    assert_eq!(status["processes"][0]["address"], cluster.address("n1"));
    assert_eq!(status["processes"][0]["kind"], "node");
    assert_eq!(status["processes"][0]["restarts"], 0);
    let table = cluster.run(&["status"]).await.ok();
    assert!(table.contains("node, leads"), "{table}");

    let everyone: Vec<u32> = pids(&status).into_iter().chain([supervisor(&status)]).collect();
    assert_eq!(everyone.len(), 4);
    cluster.run(&["down"]).await.ok();
    wait_for_ends(&everyone).await;
    let told = cluster.run(&["status"]).await.fails(1);
    assert!(told.contains("menagerie up"), "{told}");
    let told = cluster.run(&["down"]).await.fails(1);
    assert!(told.contains("nothing runs"), "{told}");
    two_go_on_without_the_third(&cluster).await;
}

/// As after a start of the machine with a damaged disk in one node.
async fn two_go_on_without_the_third(cluster: &Cluster) {
    let mark = cluster.data().join("n3").join("DAMAGED");
    std::fs::write(&mark, "its tables are damaged").unwrap();
    let ran = cluster.run(&["up", "--detach", "--json"]).await;
    let told = ran.stderr.clone();
    assert_eq!(ran.code, Some(1), "{told}");
    for part in ["its tables are damaged", "kv member replace 3 NEW", "goes on"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = [("n1", "running"), ("n2", "running"), ("n3", "failed")];
    let expected = expected.map(|(name, state)| (name.to_owned(), state.to_owned()));
    assert_eq!(states(&status), expected);
    let is_whole = |status: &Value| status["ready"] == true && status["partial"] == false;
    assert!(status["partial"] == true && status["ready"] == false, "{status}");
    cluster.client().put("a", "1").await.unwrap();
    // With what is missing all is as it would have been.
    std::fs::remove_file(&mark).unwrap();
    cluster.run(&["start", "n3", "--wait"]).await.ok();
    wait_until("the whole to be ready", SOON, async || {
        let status = cluster.status().await;
        is_whole(&status).then_some(()).ok_or_else(|| status.to_string())
    })
    .await;
}

#[tokio::test]
async fn what_a_user_kills_stays_down_until_start() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let pid = cluster.pid(&old).await.unwrap();
    let killed = cluster.run(&["kill", "leader", "--json"]).await.json();
    assert_eq!(killed["processes"][0]["name"], old.as_str());
    assert_eq!(killed["processes"][0]["state"], "killed");
    assert!(!lives(pid));

    wait_until("another node leads", SOON, async || {
        let status = cluster.status().await;
        let other = status["leader"].as_str().is_some_and(|leader| leader != old);
        if other { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(cluster.state(&old).await, "killed");
    let told = cluster.run(&["kill", &old]).await.fails(1);
    assert!(told.contains("does not run"), "{told}");

    cluster.run(&["start", &old, "--wait"]).await.ok();
    assert_eq!(cluster.state(&old).await, "running");
    assert_ne!(cluster.pid(&old).await.unwrap(), pid);
    assert_eq!(cluster.process(&old).await["restarts"], 0);
    let told = cluster.run(&["start", &old]).await.fails(1);
    assert!(told.contains("runs already"), "{told}");

    cluster.run(&["restart", &old, "--wait"]).await.ok();
    cluster.term(&old).await;
    assert_eq!(cluster.state(&old).await, "stopped");
}

#[tokio::test]
async fn what_dies_by_itself_is_started_again() {
    let cluster = Cluster::start(1).await;
    let pid = cluster.pid("n1").await.unwrap();
    signal(pid, "KILL");
    wait_until("n1 runs again", SOON, async || {
        let process = cluster.process("n1").await;
        let again = process["restarts"] == 1 && process["state"] == "running";
        if again { Ok(()) } else { Err(process.to_string()) }
    })
    .await;
    assert_ne!(cluster.pid("n1").await.unwrap(), pid);
}

#[tokio::test]
async fn a_paused_process_stands_still_until_it_is_resumed() {
    let cluster = Cluster::start(1).await;
    cluster.pause("n1").await;
    assert_eq!(cluster.state("n1").await, "paused");
    let ask = cluster
        .request("GET", "n1", "/livez")
        .timeout(Duration::from_millis(300));
    assert!(ask.send().await.unwrap_err().is_timeout());
    cluster.resume("n1").await;
    cluster.wait_for_state("n1", "running").await;
    let alive = cluster.request("GET", "n1", "/livez").send().await.unwrap();
    assert_eq!(alive.status(), 200);
    // One that is paused can also be stopped and killed.
    cluster.pause("n1").await;
    cluster.kill("n1").await;
    assert_eq!(cluster.state("n1").await, "killed");
}

#[tokio::test]
async fn a_second_up_says_who_is_there() {
    let cluster = Cluster::start(1).await;
    let supervisor = supervisor(&cluster.status().await);
    for arguments in [&["up"][..], &["up", "--detach"]] {
        let told = cluster.run(arguments).await.fails(1);
        assert!(
            told.contains(&format!("process {supervisor} runs there")),
            "{told}"
        );
    }
    let elsewhere = cluster.folder().join("elsewhere");
    let told = cluster
        .run(&["up", "--data", elsewhere.to_str().unwrap()])
        .await
        .fails(2);
    let address = cluster.address("n1");
    let line = cluster.line_of(&format!("client = \"{address}\""));
    let expected = format!("menagerie: cluster.toml:{line}: client = \"{address}\" of n1 is taken by ");
    assert!(told.starts_with(&expected), "{told}");
    if cfg!(target_os = "linux") {
        let pid = cluster.pid("n1").await.unwrap();
        assert!(told.contains(&format!("process {pid} (menagerie)")), "{told}");
        assert!(
            told.contains("address = ") && told.contains("of the console"),
            "{told}"
        );
    }
    assert_eq!(cluster.state("n1").await, "running");
}

#[tokio::test]
async fn kill_9_of_the_supervisor_leaves_no_orphan() {
    let cluster = Cluster::start(3).await;
    let status = cluster.status().await;
    let everyone = pids(&status);
    assert_eq!(everyone.len(), 3);
    if cfg!(target_os = "linux") {
        // One that cannot run cannot notice by itself either.
        cluster.pause("n3").await;
    }
    signal(supervisor(&status), "KILL");
    wait_for_ends(&everyone).await;
    // Neither the lock nor the socket file of the dead one stands in the way.
    cluster.up().await;
    assert_eq!(pids(&cluster.status().await).len(), 3);
}

#[tokio::test]
async fn in_the_foreground_ctrl_c_stops_everything() {
    let cluster = Cluster::new(1);
    // Nothing can be written to its log, as on a full disk.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = cluster.command(&["up"]);
    let mut up = command.stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
    let header = tokio::time::timeout(SOON, lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(header.is_some_and(|header| header.starts_with("NAME")));
    let killed = cluster.pid("n1").await.unwrap();
    // This is logged, and the supervisor goes on all the same.
    signal(killed, "KILL");
    let node = wait_until("n1 is started again", SOON, async || {
        match cluster.pid("n1").await {
            Some(pid) if pid != killed => Ok(pid),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    signal(up.id().unwrap(), "INT");
    let ended = tokio::time::timeout(SOON, up.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    assert!(!lives(node));
}

#[tokio::test]
async fn a_process_that_cannot_start_fails_up_with_its_reason() {
    let cluster = Cluster::new(1);
    // The store needs a folder of this name; a file is in the way.
    DirBuilder::new().mode(0o700).create(cluster.data()).unwrap();
    std::fs::write(cluster.data().join("n1"), "in the way").unwrap();
    let told = cluster.run(&["up", "--detach"]).await.fails(1);
    assert!(told.contains("n1 fails"), "{told}");
    assert!(!cluster.run(&["status"]).await.fails(1).is_empty());
}

#[tokio::test]
async fn an_up_that_is_interrupted_leaves_nothing_running() {
    let mut cluster = Cluster::start(3).await;
    cluster.down().await;
    // One of three has no majority, so that it never becomes ready.
    cluster.config.nodes.truncate(1);
    cluster.write_config();
    let mut command = cluster.command(&["up", "--detach"]);
    let command = command.stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let everyone = wait_until("the node to be started", SOON, async || {
        let told = cluster.run(&["status", "--json"]).await.stdout;
        let status: Value = serde_json::from_str(&told).map_err(|_no_json| told)?;
        let found = pids(&status);
        if found.is_empty() {
            return Err(status.to_string());
        }
        Ok([found, vec![supervisor(&status)]].concat())
    })
    .await;
    signal(child.id().unwrap(), "INT");
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.code() == Some(1) && told.contains("interrupted"),
        "{told}"
    );
    wait_for_ends(&everyone).await;
    assert!(!cluster.run(&["status"]).await.fails(1).is_empty());
}

#[tokio::test]
async fn while_one_is_slow_to_stop_the_launcher_still_answers() {
    let cluster = Cluster::start(1).await;
    let mut watch = cluster.command(&["status", "--watch", "--json"]);
    let watch = watch.stdout(Stdio::piped()).kill_on_drop(true);
    let mut watch = watch.spawn().unwrap();
    // Put aside behind the launcher's back it hears no SIGTERM, and is killed only after a while.
    signal(cluster.pid("n1").await.unwrap(), "STOP");
    let mut first = cluster.command(&["down"]);
    let first = first.stdout(Stdio::null()).kill_on_drop(true);
    let mut first = first.spawn().unwrap();
    wait_until("everything to be stopped", SOON, async || {
        let told = cluster.run(&["start", "n1"]).await.fails(1);
        if told.contains("stops everything") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    cluster.run(&["status"]).await.ok();
    cluster.run(&["down"]).await.ok();
    let ended = tokio::time::timeout(SOON, first.wait()).await.unwrap();
    assert!(ended.unwrap().success());
    // Who watches sees the end, and goes on.
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let end = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the watch goes on");
            let status: Value = serde_json::from_str(&line).unwrap();
            if status["supervisor"].is_null() {
                return states(&status);
            }
        }
    };
    let end = tokio::time::timeout(SOON, end).await.unwrap();
    assert_eq!(end, [("n1".to_owned(), "stopped".to_owned())]);
}

#[tokio::test]
async fn a_launcher_that_stands_still_is_named_and_waited_for_no_longer() {
    let cluster = Cluster::start(1).await;
    let supervisor = supervisor(&cluster.status().await);
    let told = async |arguments: &[&str]| {
        let ran = tokio::time::timeout(Duration::from_secs(10), cluster.run(arguments)).await;
        let told = ran.expect("it is waited for").fails(1);
        assert!(told.contains(&format!("process {supervisor}")), "{told}");
        if cfg!(target_os = "linux") {
            assert!(told.contains(&format!("`kill -CONT {supervisor}`")), "{told}");
        }
        told
    };
    signal(supervisor, "STOP");
    told(&["status"]).await;
    assert!(told(&["start", "n1"]).await.contains("may still be done"));
    signal(supervisor, "CONT");
    assert_eq!(cluster.state("n1").await, "running");
    signal(supervisor, "STOP");
    told(&["down"]).await;
    // It has heard that all the same.
    signal(supervisor, "CONT");
    wait_for_ends(&[supervisor]).await;
}

#[tokio::test]
async fn the_data_folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start(1).await;
    let mode = |path: &str| {
        let meta = std::fs::metadata(cluster.data().join(path)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("control.sock"), 0o600);
    assert_eq!(mode("secrets.toml"), 0o600);
}

#[tokio::test]
async fn without_a_configuration_one_node_with_built_in_settings_is_meant() {
    let cluster = Cluster::new(1);
    let empty = cluster.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let mut command = cluster.command(&["status", "--json"]);
    let output = command.current_dir(&empty).output().await.unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = states(&status).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["n1"]);
    assert_eq!(status["processes"][0]["address"], "127.0.0.1:7001");
}
