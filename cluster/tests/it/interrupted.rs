//! Runs that are ended before they have done their work: on a whole system of their own, and on one that was there.
//! Invariant: a system of its own does not outlive the run, by whichever signal it ends; and by one that the run hears,
//! nothing is left of it, and another system is as it was.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use crate::harness::{Cluster, SOON, free_ports, lives, signal, wait_until};
use crate::kv_hold::hears_hang_ups;

/// Much else may be measured before a system is started.
const SYSTEM_MAX: Duration = Duration::from_mins(1);

struct Run {
    child: Child,
    /// Of the system that it has started.
    supervisor: u32,
}

impl Run {
    /// Starts a command, and waits until a supervisor holds the data folder, whose name may depend on the command's
    /// process.
    async fn start(cluster: &Cluster, arguments: &[&str], data: impl Fn(u32) -> PathBuf) -> Self {
        let mut command = cluster.command(arguments);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let own = child.id().unwrap();
        let lock = data(own).join("lock");
        let supervisor = wait_until("a supervisor of a system of its own", SYSTEM_MAX, async || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{arguments:?} has ended: {ended:?}");
            let holder = std::fs::read_to_string(&lock).unwrap_or_default();
            let pid = holder.trim().parse::<u32>().ok();
            // The command itself holds it first, to see whether it is free.
            pid.filter(|pid| *pid != own).ok_or(holder)
        })
        .await;
        Self { child, supervisor }
    }

    async fn end_by(self, name: &str) {
        signal(self.child.id().unwrap(), name);
        self.ended().await;
    }

    async fn ended(mut self) {
        let ended = tokio::time::timeout(SYSTEM_MAX, self.child.wait()).await;
        let ended = ended.unwrap().unwrap();
        assert!(!ended.success(), "{ended}");
        wait_until("the end of the supervisor", SOON, async || {
            let still = lives(self.supervisor);
            (!still).then_some(()).ok_or(format!("{} lives", self.supervisor))
        })
        .await;
    }
}

/// What is left in the folder of a cluster, and in its data folder, under names that begin like this.
fn left(cluster: &Cluster, begin: &str) -> Vec<String> {
    let folders = [cluster.folder().to_owned(), cluster.data()];
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(begin)).collect()
}

#[tokio::test]
async fn a_comparison_takes_its_services_with_it() {
    let cluster = Cluster::with(1, |config| {
        let mut addresses = free_ports(2).into_iter().map(|port| format!("127.0.0.1:{port}"));
        config.shop.addresses = addresses.by_ref().take(1).collect();
        config.payment.addresses = addresses.collect();
    });
    let arguments = [
        "bench",
        "--only",
        "get-1",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--without-etcd",
        "--out",
        "report",
    ];
    let data = |pid: u32| cluster.folder().join(format!(".arena-{pid}/services/data"));
    Run::start(&cluster, &arguments, data).await.end_by("INT").await;
    assert_eq!(left(&cluster, ".arena"), [""; 0]);
}

#[tokio::test]
async fn what_is_broken_to_see_what_is_lost_ends_with_who_broke_it() {
    let cluster = Cluster::new(1);
    let arguments = ["bench", "redundancy", "--clients", "2", "--seconds", "60"];
    let data = |pid: u32| cluster.data().join(format!("redundancy-{pid}/data"));
    let signals = ["TERM", "HUP"].into_iter();
    for name in signals.filter(|name| *name != "HUP" || hears_hang_ups()) {
        Run::start(&cluster, &arguments, data).await.end_by(name).await;
        assert_eq!(left(&cluster, "redundancy"), [""; 0], "{name}");
    }
    // Nobody hears of this one; the kernel of Linux sees to it.
    if cfg!(target_os = "linux") {
        Run::start(&cluster, &arguments, data).await.end_by("KILL").await;
    }
}

#[tokio::test]
async fn who_ends_a_run_hears_at_once_that_it_stops() {
    let cluster = Cluster::new(1);
    let arguments = ["bench", "redundancy", "--clients", "2", "--seconds", "60"];
    let data = |pid: u32| cluster.data().join(format!("redundancy-{pid}/data"));
    let mut run = Run::start(&cluster, &arguments, data).await;
    let mut told = BufReader::new(run.child.stderr.take().unwrap()).lines();
    // It hears of nothing until it may go on, and is waited for so long.
    signal(run.supervisor, "STOP");
    signal(run.child.id().unwrap(), "INT");
    let stops = async {
        while let Some(line) = told.next_line().await.unwrap() {
            if line.starts_with("stopping") {
                return;
            }
        }
        panic!("it ended without a word");
    };
    // Far less than it waits.
    tokio::time::timeout(SOON / 3, stops).await.unwrap();
    assert!(run.child.try_wait().unwrap().is_none());
    signal(run.supervisor, "CONT");
    run.ended().await;
    assert_eq!(left(&cluster, "redundancy"), [""; 0]);
}

#[tokio::test]
async fn a_demo_stops_what_it_has_started() {
    let cluster = Cluster::new(3);
    let run = Run::start(&cluster, &["demo", "failover"], |_| cluster.data()).await;
    run.end_by("TERM").await;
    let told = cluster.run(&["status"]).await.fails(1);
    assert!(told.contains("nothing runs"), "{told}");
}

#[tokio::test]
async fn whom_an_interrupted_run_has_harmed_runs_again() {
    let cluster = Cluster::start(3).await;
    let pauses = ["bench", "failover", "--running", "--kills", "9", "--how", "pause"];
    let runs = [(&["demo", "failover"][..], "killed"), (&pauses[..], "paused")];
    for (arguments, state) in runs {
        let mut command = cluster.command(arguments);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let harmed = wait_until(&format!("a node that is {state}"), SOON, async || {
            let status = cluster.status().await;
            let mut processes = status["processes"].as_array().unwrap().iter();
            let harmed = processes.find(|process| process["state"] == state);
            let name = harmed.map(|process| process["name"].as_str().unwrap().to_owned());
            name.ok_or_else(|| status.to_string())
        })
        .await;
        signal(child.id().unwrap(), "INT");
        let ended = tokio::time::timeout(SOON, child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(1), "{arguments:?}");
        cluster.wait_for_state(&harmed, "running").await;
    }
}
