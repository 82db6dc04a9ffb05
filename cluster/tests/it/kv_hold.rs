//! `menagerie kv lease hold` and signals: what the holder is told, its command hears.
//! Invariant: a command that has no terminal never works without its lease, whatever is done to the holder that it can
//! hear of.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::harness::{BINARY, Cluster, SOON, signal, wait_until};
use crate::kv_watch::{line, wait_for_end};

fn begin(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

/// In a group of its own, as a shell would begin it, which could let it go on again.
fn hold(cluster: &Cluster, ttl: &str, script: &str) -> Child {
    let mut command = cluster.command(&["kv", "lease", "hold", ttl, "--", "sh", "-c", script]);
    begin(command.process_group(0))
}

/// How it ended, and what it said.
async fn end(child: Child) -> (Option<i32>, String) {
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
    let ended = ended.unwrap().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code(), told)
}

/// How those processes are, a line each.
fn states(which: &[&str]) -> String {
    let mut ps = std::process::Command::new("ps");
    let output = ps.args(["-o", "stat="]).args(which).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

async fn wait_for_standstill(pid: u32) {
    wait_until("a process to stand still", SOON, async || {
        let state = states(&["-p", &pid.to_string()]);
        // A shell that was just beginning a command waits for that, which stands still in its place.
        let is_still = match state.chars().next() {
            Some('D') => states(&["--ppid", &pid.to_string()]).starts_with('T'),
            first => first == Some('T'),
        };
        is_still.then_some(()).ok_or(state)
    })
    .await;
}

/// Leaves a mark again and again, once it has told its number and its lease.
const WORKER: &str = "echo $MENAGERIE_LEASE >lease; echo $$ >own; while :; do echo >>marks; sleep 0.02; done";

/// How many marks there are.
fn marks(cluster: &Cluster) -> u64 {
    std::fs::metadata(cluster.folder().join("marks")).map_or(0, |file| file.len())
}

async fn wait_for_marks(cluster: &Cluster, more_than: u64) {
    wait_until("the work to go on", SOON, async || {
        let now = marks(cluster);
        (now > more_than).then_some(()).ok_or(format!("{now} marks"))
    })
    .await;
}

#[tokio::test]
async fn a_command_stands_still_with_its_holder() {
    let cluster = Cluster::start(1).await;
    let child = hold(&cluster, "60s", WORKER);
    let own = line(&cluster, "own").await.parse().unwrap();
    let holder = child.id().unwrap();
    signal(holder, "TSTP");
    wait_for_standstill(holder).await;
    wait_for_standstill(own).await;
    let before = marks(&cluster);
    signal(holder, "CONT");
    wait_for_marks(&cluster, before).await;
    signal(holder, "TERM");
    let (code, told) = end(child).await;
    assert!(code == Some(1) && told.contains("failed"), "{told}");
}

#[tokio::test]
async fn a_standstill_that_is_called_off_at_once_is_none() {
    let cluster = Cluster::start(1).await;
    let child = hold(&cluster, "60s", WORKER);
    line(&cluster, "own").await;
    let holder = child.id().unwrap();
    let both = format!("kill -TSTP {holder} && kill -CONT {holder}");
    for _ in 0..10 {
        // By one process, so that there is hardly any time between them.
        let sent = Command::new("sh").args(["-c", &both]).status().await;
        assert!(sent.unwrap().success());
        // More than the command leaves until it would stand still.
        wait_for_marks(&cluster, marks(&cluster) + 20).await;
    }
    signal(holder, "TERM");
    let (code, told) = end(child).await;
    assert!(code == Some(1) && told.contains("failed"), "{told}");
}

/// It leads a session, as what `ssh -t` runs: for such a one the kernel ignores the key.
#[tokio::test]
async fn a_holder_that_nobody_could_let_go_on_does_not_stand_still() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let cluster = Cluster::start(1).await;
    let mut command = Command::new("setsid");
    command.args([BINARY, "kv", "lease", "hold", "60s", "--", "sh", "-c", WORKER]);
    command.current_dir(cluster.folder()).stdin(Stdio::null());
    let child = begin(command.env_remove("MENAGERIE_TOKEN"));
    line(&cluster, "own").await;
    let holder = child.id().unwrap();
    signal(holder, "TSTP");
    // More than the command leaves until its holder has heard of it.
    wait_for_marks(&cluster, marks(&cluster) + 50).await;
    signal(holder, "TERM");
    let (code, told) = end(child).await;
    assert!(code == Some(1) && told.contains("failed"), "{told}");
}

#[tokio::test]
async fn a_command_that_stood_still_for_too_long_does_not_go_on() {
    let cluster = Cluster::start(1).await;
    let child = hold(&cluster, "3s", WORKER);
    let lease = line(&cluster, "lease").await;
    let own = line(&cluster, "own").await.parse().unwrap();
    let holder = child.id().unwrap();
    signal(holder, "TSTP");
    wait_for_standstill(holder).await;
    wait_for_standstill(own).await;
    let before = marks(&cluster);
    wait_until("the lease to be gone", SOON, async || {
        let ran = cluster.run(&["kv", "lease", "get", &lease]).await;
        if ran.code == Some(1) {
            Ok(())
        } else {
            Err(ran.stdout)
        }
    })
    .await;
    signal(holder, "CONT");
    let (code, told) = end(child).await;
    assert!(code == Some(1) && told.contains("was lost"), "{told}");
    wait_for_end(own).await;
    assert_eq!(marks(&cluster), before, "it worked without its lease");
}

/// Whether this process hears a hang-up: one begun by `nohup` does not, nor does what it starts.
pub(crate) fn hears_hang_ups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 0)
}

#[tokio::test]
async fn a_command_gets_its_time_to_end_after_a_hang_up_and_a_quit() {
    let cluster = Cluster::start(1).await;
    let signals = ["QUIT", "HUP"].into_iter();
    for name in signals.filter(|name| *name != "HUP" || hears_hang_ups()) {
        let script = format!(
            "trap 'sleep 0.3; echo yes >ended-{name}; exit 0' {name}; echo yes >begun-{name}; \
             while :; do sleep 0.05; done"
        );
        let child = hold(&cluster, "60s", &script);
        line(&cluster, &format!("begun-{name}")).await;
        signal(child.id().unwrap(), name);
        let (code, told) = end(child).await;
        assert_eq!(code, Some(0), "{name}: {told}");
        assert_eq!(line(&cluster, &format!("ended-{name}")).await, "yes");
    }
}

/// Tells who holds its lease, and of each hang-up as soon as it comes.
const HEARER: &str = "trap 'echo >>hang-ups' HUP
trap 'kill $!; exit 1' TERM
(trap '' HUP; exec sleep 600) &
echo $PPID >holder
while :; do wait $!; done
";

#[tokio::test]
async fn a_command_hears_once_that_its_terminal_has_gone() {
    // What is called so on other systems is another program.
    let script = Command::new("script").arg("--version").output().await;
    if !cfg!(target_os = "linux") || script.is_err() || !hears_hang_ups() {
        return;
    }
    let cluster = Cluster::start(1).await;
    let file = |name: &str| cluster.folder().join(name);
    std::fs::write(file("hearer"), HEARER).unwrap();
    let hold = format!("{BINARY} kv lease hold 60s -- sh hearer");
    // The holder leads the session, or a shell does.
    let sessions = [format!("exec {hold}"), format!("{hold}; true")];
    // Two signals that come at once may be heard as one.
    for session in sessions.iter().cycle().take(6) {
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", session, "/dev/null"])
            .env("SHELL", "/bin/sh");
        terminal.current_dir(cluster.folder()).stdin(Stdio::null());
        let mut terminal = begin(terminal.env_remove("MENAGERIE_TOKEN"));
        let holder = line(&cluster, "holder").await.parse().unwrap();
        terminal.kill().await.unwrap();
        wait_until("a hang-up", SOON, async || {
            let heard = std::fs::read_to_string(file("hang-ups"));
            heard.map(drop).map_err(|error| error.to_string())
        })
        .await;
        signal(holder, "TERM");
        wait_for_end(holder).await;
        let heard = std::fs::read_to_string(file("hang-ups")).unwrap();
        assert_eq!(heard, "\n", "{session}");
        for name in ["holder", "hang-ups"] {
            std::fs::remove_file(file(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn what_ignores_hang_ups_goes_on_ignoring_them() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let cluster = Cluster::start(1).await;
    let script = "trap 'exit 0' TERM; echo yes >begun; while :; do sleep 0.05; done";
    let holder = format!("trap '' HUP; exec {BINARY} kv lease hold 60s -- sh -c \"$0\"");
    let mut command = Command::new("sh");
    let command = command.args(["-c", &holder, script]);
    let command = command.current_dir(cluster.folder()).stdin(Stdio::null());
    let child = begin(command.env_remove("MENAGERIE_TOKEN"));
    line(&cluster, "begun").await;
    signal(child.id().unwrap(), "HUP");
    signal(child.id().unwrap(), "TERM");
    let (code, told) = end(child).await;
    assert_eq!(code, Some(0), "{told}");
}

/// A node that cuts all that comes, and when some time has passed answers with a lease that is over by then.
async fn answer_late(listener: TcpListener) {
    const LATE: Duration = Duration::from_millis(700);
    let mut first = None;
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let began = *first.get_or_insert_with(Instant::now);
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let Ok(1..) = stream.read_buf(&mut request).await else {
                break;
            };
        }
        if began.elapsed() > LATE {
            let body = r#"{"id":7,"ttl_ms":500}"#;
            let length = body.len();
            let head =
                format!("HTTP/1.1 201 Created\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            // Who no longer waits asks again.
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn no_command_begins_under_a_lease_that_is_over() {
    let cluster = Cluster::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = listener.local_addr().unwrap().to_string();
    let hold = [
        "kv",
        "--endpoints",
        &node,
        "lease",
        "hold",
        "500ms",
        "--",
        "touch",
        "begun",
    ];
    let mut command = cluster.command(&hold);
    let child = begin(command.env("MENAGERIE_TOKEN", "of-no-meaning-here"));
    let (code, told) = tokio::select! {
        ended = end(child) => ended,
        () = answer_late(listener) => (None, String::new()),
    };
    assert!(code == Some(1) && told.contains("ran out before"), "{told}");
    assert!(!cluster.folder().join("begun").exists());
}
