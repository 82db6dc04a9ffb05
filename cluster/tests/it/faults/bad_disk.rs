//! A disk that has become slow, one that fails, and one that hangs: the shim in `shim.c` stands between a node and its
//! syncs. Invariant: a slow disk under the leader costs no acknowledgement and no election by timeout; a failed sync ends
//! the process, and is never tried again; one that does not come back does not keep the process from ending.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, SOON, signal, wait_until};
use crate::load::{Load, Plan, verify};

const ALL: [&str; 3] = ["n1", "n2", "n3"];
const SLOW_MS: u64 = 300;
/// Longer than any test takes.
const HANGS_MS: u64 = 600_000;

struct Shim {
    library: PathBuf,
    control: PathBuf,
}

impl Shim {
    /// Three nodes whose syncs can be hindered.
    async fn start() -> (Cluster, Self) {
        let cluster = Cluster::with(3, |config| config.store.slow_disk_ms = 100);
        let shim = Self::build(&cluster);
        let mut up = cluster.command(&["up", "--detach"]);
        shim.lay_under(&mut up);
        crate::harness::Ran::of(up.output().await.unwrap()).ok();
        (cluster, shim)
    }

    /// For whatever is to run in the folder of this cluster.
    fn build(cluster: &Cluster) -> Self {
        let library = cluster.folder().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/shim.c");
        let built = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .arg("-ldl")
            .status()
            .unwrap();
        assert!(built.success(), "the shim was not built");
        let control = cluster.folder().join("hindrance");
        Self { library, control }
    }

    /// Also under all that this command starts.
    fn lay_under(&self, command: &mut tokio::process::Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("MENAGERIE_SHIM", &self.control);
    }

    /// From now on, for the log of this node.
    fn hinder(&self, node: &str, how: &str) {
        std::fs::write(&self.control, format!("/{node}/raft/ {how}\n")).unwrap();
    }

    fn end(&self) {
        std::fs::remove_file(&self.control).unwrap();
    }
}

/// A figure of a node, from its metrics.
async fn metric(cluster: &Cluster, node: &str, name: &str) -> f64 {
    let answer = cluster.request("GET", node, "/metrics").send().await.unwrap();
    let text = answer.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_leader_whose_disk_is_slow_lets_another_lead() {
    let (cluster, shim) = Shim::start().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let old = cluster.leader().await;
    shim.hinder(&old, &SLOW_MS.to_string());
    wait_until("another node leads", SOON, async || {
        let leader = cluster.leader().await;
        if leader == old {
            Err(format!("{leader} still leads"))
        } else {
            Ok(())
        }
    })
    .await;
    // It knows that itself only once its own disk has the vote for the other.
    wait_until("it was for the disk", SOON, async || {
        let handed_over = metric(&cluster, &old, "kv_slow_disk_handovers_total").await;
        if handed_over >= 1.0 {
            Ok(())
        } else {
            Err(format!("{old} handed over {handed_over} times"))
        }
    })
    .await;
    // The slow one is a follower now, and two quick ones decide.
    let began = Instant::now();
    load.progress(began, 500).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "500 writes took {took:?}");
    shim.end();
    verify(&cluster, &ALL, load.stop().await).await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_node_and_costs_nothing_acknowledged() {
    let (cluster, shim) = Shim::start().await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 200).await;
    let leader = cluster.leader().await;
    let pid = cluster.pid(&leader).await.unwrap();
    shim.hinder(&leader, "EIO");
    wait_until("the process has ended", SOON, async || {
        match cluster.pid(&leader).await {
            Some(now) if now == pid => Err("it goes on".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    shim.end();
    load.progress(Instant::now(), 300).await;
    let log = cluster.log(&leader);
    assert!(
        log.contains("must not be acknowledged"),
        "it does not say why it ended: {log}"
    );
    cluster.wait_for_state(&leader, "running").await;
    verify(&cluster, &ALL, load.stop().await).await;
}

/// It runs without the launcher, which would kill what does not end in time.
#[tokio::test]
async fn a_node_whose_disk_hangs_ends_when_it_is_told_to() {
    let cluster = Cluster::new(1);
    let shim = Shim::build(&cluster);
    let log = cluster.folder().join("n1.log");
    let output = File::create(&log).unwrap();
    let mut command = cluster.command(&["node", "--id", "1"]);
    shim.lay_under(&mut command);
    command
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .kill_on_drop(true);
    let mut node = command.spawn().unwrap();
    wait_until("the node is ready", SOON, async || {
        let url = format!("http://{}/readyz", cluster.address("n1"));
        let answer = cluster.http.get(url).send().await;
        match answer.map(|answer| answer.status()) {
            Ok(status) if status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    shim.hinder("n1", &HANGS_MS.to_string());
    let put = cluster.request("PUT", "n1", "/v1/kv/key").body("value");
    let put = tokio::time::timeout(Duration::from_secs(1), put.send()).await;
    assert!(put.is_err(), "its disk does not hang: {put:?}");
    signal(node.id().unwrap(), "TERM");
    let ended = tokio::time::timeout(SOON, node.wait()).await;
    let said = std::fs::read_to_string(&log).unwrap();
    let ended = ended.unwrap_or_else(|late| panic!("{late}; it said: {said}"));
    assert_eq!(ended.unwrap().code(), Some(0), "{said}");
    assert!(said.contains("this process ends without closing them"), "{said}");
}
