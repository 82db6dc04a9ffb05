//! A store and a mirror of it, in this process.
//! Invariant: a mirror that is handed out serves; it need not have copied anything yet.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use kvstore_client::KvClient;
use serde_json::Value;
use service::config::{Config, MirrorConfig, MirrorEngine, MirrorMode, OnLoss, RANGE_ROWS_MIN};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::{Client, Cluster, wait_for};

pub(crate) const NAME: &str = "mirror-one";

pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
}

/// A process, and what stops it.
pub(crate) type Running = (Tasks, JoinHandle<anyhow::Result<()>>);

pub(crate) struct Mirror {
    pub(crate) client: Client,
    tasks: Tasks,
    running: JoinHandle<anyhow::Result<()>>,
}

impl System {
    pub(crate) async fn start(engine: MirrorEngine, mode: MirrorMode) -> Self {
        // A page larger than any store must give is refused.
        let cluster = Cluster::start_with(1, |config| config.limits.range_rows_max = RANGE_ROWS_MIN).await;
        let mut config = cluster.config();
        "petstore".clone_into(&mut config.shop.name);
        config.mirrors = vec![MirrorConfig {
            name: NAME.to_owned(),
            address: "127.0.0.1:0".to_owned(),
            engine,
            mode,
            on_loss: OnLoss::Degrade,
            interval_ms: 20,
        }];
        Self { cluster, config }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.cluster.folder().join(NAME)
    }

    /// As root.
    pub(crate) fn store(&self) -> KvClient {
        KvClient::builder(self.cluster.addresses())
            .token(self.cluster.secrets().token("root").unwrap().expose())
            .build()
            .unwrap()
    }

    pub(crate) async fn mirror(&self) -> Mirror {
        self.mirror_in(self.folder()).await
    }

    fn settings(&self, data: PathBuf, address: SocketAddr) -> mirror::Settings {
        mirror::Settings {
            config: self.config.clone(),
            name: NAME.to_owned(),
            address: address.to_string(),
            data,
            secrets: self.cluster.secrets().clone(),
        }
    }

    /// Makes another cluster at the same address, with the same tokens and nothing of what the first one had.
    pub(crate) async fn begin_anew(&mut self) -> Running {
        self.cluster.stop_node(0).await;
        self.node("anew").await
    }

    /// The first cluster once more, when nobody is at its address.
    pub(crate) async fn begin_again(&self) -> Running {
        self.node("n1").await
    }

    /// A node at the address of the first one, with what is in this folder.
    async fn node(&self, folder: &str) -> Running {
        let clients = TcpListener::bind(&self.config.nodes[0].client).await.unwrap();
        let peers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = self.config.clone();
        config.nodes[0].peer = peers.local_addr().unwrap().to_string();
        let settings = kvstore::Settings {
            id: config.nodes[0].id,
            config,
            data: self.cluster.folder().join(folder),
            secrets: self.cluster.secrets().clone(),
        };
        let tasks = Tasks::new();
        let node = Box::pin(kvstore::run(settings, clients, peers, tasks.clone()));
        let running = tasks.spawn("node", node);
        (tasks, running)
    }

    /// Runs a mirror until it ends by itself.
    pub(crate) async fn run_in(&self, data: PathBuf) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = self.settings(data, listener.local_addr().unwrap());
        Box::pin(mirror::run(settings, listener, Tasks::new())).await
    }

    pub(crate) async fn mirror_in(&self, data: PathBuf) -> Mirror {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let settings = self.settings(data, address);
        let tasks = Tasks::new();
        let running = tasks.spawn("mirror", Box::pin(mirror::run(settings, listener, tasks.clone())));
        let operator = self.cluster.secrets().token("operator").unwrap();
        let client = Client::at(address, operator.expose());
        wait_for("the mirror to serve", async || {
            assert!(!running.is_finished(), "the mirror has ended");
            let status = client.get("/status").await;
            (status.status == 200).then_some(()).ok_or(status.text())
        })
        .await;
        Mirror {
            client,
            tasks,
            running,
        }
    }
}

impl Mirror {
    pub(crate) async fn stop(mut self) {
        self.tasks.stop();
        (&mut self.running).await.unwrap().unwrap();
    }

    pub(crate) async fn status(&self) -> Value {
        self.client.get("/status").await.expect(200).json()
    }

    /// Waits until the copy is at least there.
    pub(crate) async fn reaches(&self, revision: u64) {
        wait_for("the copy to get there", async || {
            let status = self.status().await;
            let there = status["revision"].as_u64().unwrap();
            (there >= revision).then_some(()).ok_or(status)
        })
        .await;
    }

    pub(crate) async fn sync(&self) -> Value {
        let request = self.client.request(reqwest::Method::POST, "/sync");
        self.client.send(request).await.expect(200).json()
    }

    pub(crate) async fn verify(&self) -> Value {
        self.client.get("/verify").await.expect(200).json()
    }

    #[track_caller]
    pub(crate) fn equal(verdict: &Value) {
        assert_eq!(verdict["equal"], true, "{verdict}");
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Some of what a shop writes, and some of what nobody knows.
pub(crate) async fn write_goods(store: &KvClient, numbers: std::ops::Range<u32>) -> u64 {
    let mut revision = 0;
    for number in numbers {
        let product = format!(
            r#"{{"name":"Pet {number}","species":"dog","category":"pets","description":"good","price_minor":{},"created_ms":1700000000000}}"#,
            1000 + number
        );
        let key = |part: &str| format!("shop/petstore/live/goods/{number}/{part}");
        let txn = kvstore_client::Txn::new()
            .then(kvstore_client::wire::txn::Op::put(&key("record"), product))
            .then(kvstore_client::wire::txn::Op::put(
                &key("stock"),
                number.to_string(),
            ));
        revision = store.txn(txn).await.unwrap().revision;
    }
    let blob = Bytes::from_static(&[0, 159, 146, 150]);
    store.put("raw/blob", blob).await.unwrap();
    store.put("raw/gone", "x").await.unwrap();
    store.delete("raw/gone").await.unwrap();
    revision + 3
}
