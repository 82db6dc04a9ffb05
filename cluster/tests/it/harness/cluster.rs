//! The cluster under test: its folder, its configuration, and what one can do to its processes.
//! Invariant: dropping it stops every process of its folder.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};

use kvstore_client::KvClient;
use serde_json::Value;
use service::config::{Config, NodeConfig, Role};
use service::http::{self, Timeouts};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::ports::free_ports;
use super::process::{BINARY, Ran, command_of};
use super::wait::{SOON, wait_until};

pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) config: Config,
    pub(crate) http: reqwest::Client,
}

impl Cluster {
    /// A folder with a `cluster.toml` of so many voters on free ports; nothing runs yet.
    pub(crate) fn new(nodes: u64) -> Self {
        Self::with(nodes, |_| {})
    }

    /// The same, with changes to the configuration.
    pub(crate) fn with(nodes: u64, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::Builder::new().prefix("mng").tempdir().unwrap();
        let mut ports = free_ports(2 * usize::try_from(nodes).unwrap() + 1);
        let console = ports.pop().unwrap();
        let mut config = Config {
            nodes: Vec::new(),
            ..Config::default()
        };
        for (id, pair) in (1..=nodes).zip(ports.chunks(2)) {
            config.nodes.push(NodeConfig {
                id,
                client: format!("127.0.0.1:{}", pair[0]),
                peer: format!("127.0.0.1:{}", pair[1]),
                role: Role::Voter,
                client_listen: None,
                peer_listen: None,
            });
        }
        config.console.address = format!("127.0.0.1:{console}");
        config.data = folder.path().join("data");
        config.limits.disk_free_bytes_min = 1 << 20;
        change(&mut config);
        let cluster = Self {
            folder,
            config,
            http: http::client(Timeouts::default()),
        };
        cluster.write_config();
        cluster
    }

    /// A cluster that runs and is ready.
    pub(crate) async fn start(nodes: u64) -> Self {
        let cluster = Self::new(nodes);
        cluster.up().await;
        cluster
    }

    /// Writes the configuration as it is now, for processes that are started from now on.
    pub(crate) fn write_config(&self) {
        std::fs::write(
            self.folder.path().join("cluster.toml"),
            self.config.to_toml().unwrap(),
        )
        .unwrap();
    }

    /// The line of `cluster.toml` that says this.
    pub(crate) fn line_of(&self, text: &str) -> usize {
        let file = std::fs::read_to_string(self.folder.path().join("cluster.toml")).unwrap();
        1 + file.lines().position(|line| line == text).unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.config.data.clone()
    }

    /// A run of the binary in the folder of this cluster, where it finds `cluster.toml` by itself.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .current_dir(self.folder())
            .env_remove("MENAGERIE_TOKEN")
            .stdin(Stdio::null());
        #[cfg(feature = "planted")]
        if let Some(bug) = service::planted::planted() {
            command.env(service::planted::VARIABLE, bug);
        }
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().await.unwrap())
    }

    pub(crate) async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input closes it; that is no fault of the test.
        let _ = child.stdin.take().unwrap().write_all(input).await;
        Ran::of(child.wait_with_output().await.unwrap())
    }

    pub(crate) async fn up(&self) {
        self.run(&["up", "--detach"]).await.ok();
    }

    pub(crate) async fn down(&self) {
        self.run(&["down"]).await.ok();
    }

    /// `status --json`.
    pub(crate) async fn status(&self) -> Value {
        self.run(&["status", "--json"]).await.json()
    }

    pub(crate) async fn kill(&self, name: &str) {
        self.run(&["kill", name]).await.ok();
    }

    pub(crate) async fn term(&self, name: &str) {
        self.run(&["term", name]).await.ok();
    }

    pub(crate) async fn pause(&self, name: &str) {
        self.run(&["pause", name]).await.ok();
    }

    pub(crate) async fn resume(&self, name: &str) {
        self.run(&["resume", name]).await.ok();
    }

    /// Starts a process without waiting until it is ready.
    pub(crate) async fn start_node(&self, name: &str) {
        self.run(&["start", name]).await.ok();
    }

    /// One process as the launcher sees it.
    pub(crate) async fn process(&self, name: &str) -> Value {
        let status = self.status().await;
        let processes = status["processes"].as_array().unwrap();
        processes
            .iter()
            .find(|process| process["name"] == name)
            .unwrap()
            .clone()
    }

    pub(crate) async fn state(&self, name: &str) -> String {
        self.process(name).await["state"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn pid(&self, name: &str) -> Option<u32> {
        self.process(name).await["pid"]
            .as_u64()
            .map(|pid| u32::try_from(pid).unwrap())
    }

    pub(crate) async fn wait_for_state(&self, name: &str, state: &str) {
        wait_until(&format!("{name} is {state}"), SOON, async || {
            let seen = self.process(name).await;
            if seen["state"] == state {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        })
        .await;
    }

    /// Waits until some node leads, by the word of the nodes, and answers its name.
    pub(crate) async fn leader(&self) -> String {
        wait_until("a leader", SOON, async || {
            let status = self.status().await;
            status["leader"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| status.to_string())
        })
        .await
    }

    /// Some node that does not lead.
    pub(crate) async fn follower(&self) -> String {
        let leader = self.leader().await;
        let mut names = self.config.nodes.iter().map(NodeConfig::name);
        names.find(|name| *name != leader).unwrap()
    }

    pub(crate) fn address(&self, name: &str) -> &str {
        let node = self.config.nodes.iter().find(|node| node.name() == name).unwrap();
        &node.client
    }

    /// The address of a path of the console.
    pub(crate) fn console(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.console.address)
    }

    pub(crate) fn token(&self, name: &str) -> String {
        let secrets = service::secrets::load(&self.data()).unwrap();
        secrets.token(name).unwrap().expose().to_owned()
    }

    /// A client of all nodes with the rights of root.
    pub(crate) fn client(&self) -> KvClient {
        self.client_of(self.config.client_addresses())
    }

    /// A client that knows only these nodes.
    pub(crate) fn client_of(&self, endpoints: Vec<String>) -> KvClient {
        KvClient::builder(endpoints)
            .token(self.token("root"))
            .build()
            .unwrap()
    }

    /// A plain request to one node with the token of root.
    pub(crate) fn request(&self, method: &str, name: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address(name));
        self.http
            .request(method.parse().unwrap(), url)
            .bearer_auth(self.token("root"))
    }

    pub(crate) fn log(&self, process: &str) -> String {
        let path = self.data().join("logs").join(format!("{process}.log"));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    fn show_logs(&self) {
        let mut text = String::new();
        let names = self.config.nodes.iter().map(NodeConfig::name);
        let payments = self.config.payment.instances().map(|(name, _)| name);
        let shops = self.config.shop.instances().map(|(name, _)| name);
        let mirrors = self.config.mirrors.iter().map(|mirror| mirror.name.clone());
        let others = ["gateway", "supervisor"].map(str::to_owned);
        for name in names.chain(payments).chain(shops).chain(mirrors).chain(others) {
            let log = self.log(&name);
            let lines: Vec<&str> = log.lines().collect();
            let _ = writeln!(text, "--- the end of {name}.log");
            for line in &lines[lines.len().saturating_sub(30)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        // What the lock says is the supervisor; its end is the end of all its processes.
        let Ok(holder) = std::fs::read_to_string(self.data().join("lock")) else {
            return;
        };
        let stopped = Blocking::new(BINARY)
            .args(["down", "--data"])
            .arg(self.data())
            .current_dir(self.folder())
            .output();
        let stopped = stopped.is_ok_and(|output| output.status.success());
        if !stopped && command_of(holder.trim()).contains("menagerie") {
            let _ = Blocking::new("kill").args(["-9", holder.trim()]).status();
        }
    }
}
