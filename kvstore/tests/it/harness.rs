//! Starts nodes in this process and speaks to them over HTTP.
//!
//! Each test has a cluster of its own on free ports and in a temporary folder. Waiting is always for a
//! condition, with a deadline that prints what was seen last.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;
use service::config::{Config, NodeConfig, Role};
use service::secrets::Secrets;
use service::tasks::Tasks;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    nodes: Vec<Node>,
    secrets: Secrets,
    folder: TempDir,
}

struct Node {
    address: SocketAddr,
    tasks: Tasks,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |_config| {}).await
    }

    /// `adjust` changes the configuration before the nodes start.
    pub(crate) async fn start_with(count: usize, adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::generate().unwrap();
        let mut config = Config {
            nodes: Vec::new(),
            ..Config::default()
        };
        // Tests share the machine with each other; an election without cause would only be noise.
        config.store.heartbeat_ms = 100;
        config.store.election_min_ms = 1000;
        config.store.election_max_ms = 1200;
        let mut listeners = Vec::new();
        for id in 1..=count as u64 {
            let (client, peer) = (listen().await, listen().await);
            let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
            let (client_address, peer_address) = (address(&client), address(&peer));
            config.nodes.push(NodeConfig {
                id,
                client: client_address,
                peer: peer_address,
                role: Role::Voter,
                client_listen: None,
                peer_listen: None,
            });
            listeners.push((id, client, peer));
        }
        adjust(&mut config);
        let nodes = listeners.into_iter().map(|(id, client, peer)| {
            let data = folder.path().join(format!("n{id}"));
            let settings = kvstore::Settings {
                config: config.clone(),
                id,
                data,
                secrets: secrets.clone(),
            };
            let (address, tasks) = (client.local_addr().unwrap(), Tasks::new());
            let running = tasks.spawn(
                "node",
                Box::pin(kvstore::run(settings, client, peer, tasks.clone())),
            );
            Node {
                address,
                tasks,
                running,
            }
        });
        let cluster = Self {
            nodes: nodes.collect(),
            secrets,
            folder,
        };
        for node in 0..count {
            let client = cluster.client(node);
            let ready = async || {
                let answer = client.get("/readyz").await;
                (answer.status == 200).then_some(()).ok_or(answer.text())
            };
            wait_for(&format!("node {} to be ready", node + 1), ready).await;
        }
        cluster
    }

    /// Speaks to one node as root, in a key space of its own.
    pub(crate) fn client(&self, node: usize) -> Client {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Client {
            http: service::http::client(DEADLINE),
            base: format!("http://{}", self.nodes[node].address),
            address: self.nodes[node].address,
            token: self.secrets.token("root").unwrap().expose().to_owned(),
            space: format!("space-{}/", NEXT.fetch_add(1, Ordering::Relaxed)),
            others: self.nodes.iter().map(|node| node.address).collect(),
        }
    }

    /// Where the nodes are, for a service that is to work on them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes.map(|node| node.address.to_string()).collect()
    }

    /// The configuration of a service that is to work on these nodes.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        let template = config.nodes[0].clone();
        let nodes = self.addresses().into_iter().map(|client| NodeConfig {
            client,
            ..template.clone()
        });
        config.nodes = nodes.collect();
        config
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Tells one node to stop and waits until it has.
    pub(crate) async fn stop_node(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.tasks.stop();
        let stopped = tokio::time::timeout(DEADLINE, &mut node.running).await;
        stopped
            .expect("a node stops in time")
            .unwrap()
            .expect("a node stops without an error");
    }

    pub(crate) async fn stop(mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].tasks.stop();
        }
        for node in 0..self.nodes.len() {
            self.stop_node(node).await;
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Asks again and again until it is `Ok`, or fails with the last thing seen.
pub(crate) async fn wait_for<T, E: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(seen) => assert!(
                began.elapsed() < DEADLINE,
                "waited for {what}; last seen: {seen:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    space: String,
    others: Vec<SocketAddr>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.header(name)
            .parse()
            .unwrap_or_else(|error| panic!("header {name} of {self:?}: {error}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The `code` of a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        assert_eq!(body["request_id"], self.header("x-request-id"), "{body}");
        assert_eq!(
            body["type"],
            format!("/problems/{}", body["code"].as_str().unwrap())
        );
        body["code"].as_str().unwrap().to_owned()
    }

    /// The pointers of all faults.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", self.text(), self.headers);
        self
    }

    /// Expects a problem of this status and code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{}",
            self.text()
        );
        self
    }
}

impl Client {
    /// Speaks to something else than a node, such as a service that works on them.
    pub(crate) fn at(address: SocketAddr, token: &str) -> Self {
        Self {
            http: service::http::client(DEADLINE),
            base: format!("http://{address}"),
            address,
            token: token.to_owned(),
            space: String::new(),
            others: Vec::new(),
        }
    }

    /// A key that no other case uses.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.space)
    }

    /// The same rights and key space through another node, if there is one.
    pub(crate) fn elsewhere(&self) -> Self {
        let at = self
            .others
            .iter()
            .position(|address| *address == self.address)
            .unwrap();
        let address = self.others[(at + 1) % self.others.len()];
        Self {
            address,
            base: format!("http://{address}"),
            ..self.clone()
        }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) fn request(&self, method: Method, target: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{target}", self.base))
            .bearer_auth(&self.token)
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer {
            status,
            headers,
            body: response.bytes().await.unwrap(),
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(self.request(Method::GET, target)).await
    }

    pub(crate) async fn delete(&self, target: &str) -> Answer {
        self.send(self.request(Method::DELETE, target)).await
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, target).json(body)).await
    }

    /// Puts one key of this client's space.
    pub(crate) async fn put(&self, name: &str, value: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::PUT, &self.path(name)).body(value.into());
        self.send(request).await.expect(200)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("/v1/kv/{}", self.key(name))
    }

    pub(crate) async fn read(&self, name: &str) -> Answer {
        self.get(&self.path(name)).await
    }

    pub(crate) async fn txn(&self, body: &Value) -> Answer {
        self.post("/v1/txn", body).await
    }

    /// The store's present revision.
    pub(crate) async fn revision(&self) -> u64 {
        self.get("/v1/revision").await.expect(200).json()["revision"]
            .as_u64()
            .unwrap()
    }

    /// Makes a token for this client's space: read or write of `prefix` within it.
    pub(crate) async fn token(&self, name: &str, rules: &[(&str, &str)]) -> Self {
        let prefixes: Vec<Value> = rules
            .iter()
            .map(|(prefix, access)| serde_json::json!({"prefix": self.key(prefix), "access": access}))
            .collect();
        let target = format!("/v1/tokens/{}{name}", self.space.trim_end_matches('/'));
        let request = self
            .request(Method::PUT, &target)
            .json(&serde_json::json!({"prefixes": prefixes}));
        let made = self.send(request).await.expect(201).json();
        self.with_token(made["token"].as_str().unwrap())
    }

    /// The name under which `token` made it.
    pub(crate) fn token_name(&self, name: &str) -> String {
        format!("{}{name}", self.space.trim_end_matches('/'))
    }
}
