//! A store, some models and some instances of the consensus in this process, and what tests say to them.
//! Invariant: each test has a system of its own, and none ends before its ledger was seen to be conserved.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use predictors::Settings;
use reqwest::Method;
use serde_json::{Value, json};
use service::config::{Config, PredictorConfig, RANGE_ROWS_MIN};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::harness::{Answer, Client, Cluster, DEADLINE, wait_for};

/// A flower that every model knows.
pub(crate) const SETOSA: &str = "sl=5.1&sw=3.5&pl=1.4&pw=0.2";

pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
    consensus: Vec<Instance>,
    models: Vec<Instance>,
    liars: Tasks,
}

struct Instance {
    address: SocketAddr,
    tasks: Tasks,
    running: JoinHandle<anyhow::Result<()>>,
    /// Of its own, so that it can be cut down with all its tasks.
    runtime: Option<Runtime>,
}

/// What a system consists of.
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) consensus: usize,
    /// Name, kind and behaviour.
    pub(crate) models: Vec<(&'static str, &'static str, &'static str)>,
}

pub(crate) const HONEST: [(&str, &str, &str); 3] = [
    ("naive-bayes", "naive-bayes", ""),
    ("knn", "knn", ""),
    ("logistic", "logistic", ""),
];

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 1,
            consensus: 1,
            models: HONEST.to_vec(),
        }
    }
}

impl System {
    pub(crate) async fn start() -> Self {
        Self::start_with(Plan::default(), |_config| {}).await
    }

    pub(crate) async fn start_with(plan: Plan, adjust: impl FnOnce(&mut Config)) -> Self {
        // A page larger than any store must give is refused.
        let cluster =
            Cluster::start_with(plan.nodes, |config| config.limits.range_rows_max = RANGE_ROWS_MIN).await;
        let mut config = cluster.config();
        config.consensus.sweep_every_ms = 100;
        let mut listeners = Vec::new();
        for (name, kind, behave) in plan.models {
            let listener = listen().await;
            config.models.push(model(name, kind, behave, &listener));
            listeners.push(listener);
        }
        adjust(&mut config);
        let mut system = Self {
            cluster,
            config,
            consensus: Vec::new(),
            models: Vec::new(),
            liars: Tasks::new(),
        };
        for (index, listener) in listeners.into_iter().enumerate() {
            let name = system.config.models[index].name.clone();
            let instance = system.instance(&name, listener, true);
            system.models.push(instance);
        }
        for index in 0..system.models.len() {
            system.ready(system.models[index].address).await;
        }
        for number in 1..=plan.consensus {
            system.start_consensus(number).await;
        }
        system
    }

    fn instance(&self, name: &str, listener: TcpListener, model: bool) -> Instance {
        let address = listener.local_addr().unwrap();
        let settings = Settings {
            config: self.config.clone(),
            name: name.to_owned(),
            address: address.to_string(),
            secrets: self.cluster.secrets().clone(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tasks = Tasks::new();
        let stop = tasks.clone();
        let listener = listener.into_std().unwrap();
        let entered = runtime.enter();
        let running = tasks.spawn("process", async move {
            let listener = TcpListener::from_std(listener)?;
            if model {
                Box::pin(predictors::model::run(settings, listener, stop)).await
            } else {
                Box::pin(predictors::consensus::run(settings, listener, stop)).await
            }
        });
        drop(entered);
        Instance {
            address,
            tasks,
            running,
            runtime: Some(runtime),
        }
    }

    pub(crate) async fn start_consensus(&mut self, number: usize) {
        let name = format!("consensus{number}");
        let instance = self.instance(&name, listen().await, false);
        let address = instance.address;
        self.consensus.push(instance);
        self.ready(address).await;
        let client = self.consensus(number - 1);
        let expected = self.config.models.len();
        wait_for("the models of the configuration to join", async || {
            let models = client.get("/models").await.expect(200).json();
            let joined = models.as_array().unwrap().len();
            (joined >= expected).then_some(()).ok_or(joined)
        })
        .await;
    }

    /// Another process of the same model.
    pub(crate) async fn start_model_again(&mut self, index: usize) {
        let name = self.config.models[index].name.clone();
        let instance = self.instance(&name, listen().await, true);
        let address = instance.address;
        self.models.push(instance);
        self.ready(address).await;
    }

    async fn ready(&self, address: SocketAddr) {
        let client = Client::at(address, "nobody-at-all-here");
        wait_for("a process to be ready", async || {
            let answer = client.get("/readyz").await;
            (answer.status == 200).then_some(()).ok_or(answer.text())
        })
        .await;
    }

    fn token(&self, name: &str) -> &str {
        self.cluster.secrets().token(name).unwrap().expose()
    }

    /// As the oracle.
    pub(crate) fn consensus(&self, instance: usize) -> Client {
        Client::at(self.consensus[instance].address, self.token("oracle"))
    }

    /// Through the first instance that lives.
    pub(crate) fn operator(&self) -> Client {
        let mut living = self
            .consensus
            .iter()
            .filter(|instance| instance.runtime.is_some());
        Client::at(living.next().unwrap().address, self.token("operator"))
    }

    /// Through this instance.
    pub(crate) fn operator_of(&self, instance: usize) -> Client {
        Client::at(self.consensus[instance].address, self.token("operator"))
    }

    pub(crate) fn model(&self, instance: usize) -> Client {
        Client::at(self.models[instance].address, self.token("operator"))
    }

    /// What the consensus says of the flower that every model knows.
    pub(crate) async fn said(&self) -> Value {
        let target = format!("/predict?{SETOSA}");
        self.consensus(0).get(&target).await.expect(200).json()
    }

    /// Opens a round about the flower that every model knows.
    pub(crate) async fn open(&self, instance: usize) -> String {
        let body = json!({"sl": 5.1, "sw": 3.5, "pl": 1.4, "pw": 0.2});
        let answer = self.consensus(instance).post("/predict", &body).await;
        answer.expect(201).json()["round_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn report(&self, instance: usize, round: &str, outcome: Value) -> Answer {
        let body = json!({"round_id": round, "outcome": outcome});
        self.consensus(instance).post("/outcomes", &body).await
    }

    /// The ledger must be conserved.
    pub(crate) async fn check(&self) -> Value {
        let ledger = self.operator().get("/ledger").await.expect(200).json();
        assert_eq!(ledger["conserved"], true, "{ledger}");
        let sum = |name: &str| ledger[name].as_u64().unwrap();
        let parts = sum("stakes_micro") + sum("treasury_micro") + sum("escrow_micro");
        assert_eq!(parts, sum("supply_micro"), "{ledger}");
        ledger
    }

    pub(crate) async fn find_model(&self, name: &str) -> Value {
        let models = self.operator().get("/models").await.expect(200).json();
        let mut models = models.as_array().unwrap().iter();
        models
            .find(|model| model["name"] == name)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// Something that answers `POST /predict` with this body, and joins under this name.
    pub(crate) async fn add_liar(&self, name: &str, body: String) -> Answer {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/predict", post(move || std::future::ready(body.clone())));
        self.liars.spawn(
            "liar",
            serve::serve(listener, app, Limits::default(), self.liars.clone()),
        );
        let body = json!({"name": name, "url": format!("http://{address}"), "deposit": 1000});
        self.operator().post("/models", &body).await
    }

    pub(crate) async fn stop_model(&mut self, index: usize) {
        stop(&mut self.models[index]).await;
    }

    /// Ends the process as kill -9 would: whatever is under way is dropped where it stands.
    pub(crate) async fn kill_consensus(&mut self, index: usize) {
        let instance = &mut self.consensus[index];
        instance.runtime.take().unwrap().shutdown_background();
        let _cut_down = (&mut instance.running).await;
    }

    /// Stops everything, after a last look at the ledger.
    pub(crate) async fn stop(mut self) {
        self.check().await;
        for instance in self.consensus.iter_mut().chain(&mut self.models) {
            if instance.runtime.is_some() {
                stop(instance).await;
            }
        }
        self.liars.stop();
        self.liars.drain(Duration::from_secs(5)).await;
        self.cluster.stop().await;
    }
}

async fn stop(instance: &mut Instance) {
    instance.tasks.stop();
    let stopped = tokio::time::timeout(DEADLINE, &mut instance.running).await;
    stopped.expect("stops in time").unwrap().unwrap();
    if let Some(runtime) = instance.runtime.take() {
        runtime.shutdown_background();
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn model(name: &str, kind: &str, behave: &str, listener: &TcpListener) -> PredictorConfig {
    PredictorConfig {
        name: name.to_owned(),
        address: listener.local_addr().unwrap().to_string(),
        model: kind.to_owned(),
        table: String::new(),
        label: String::new(),
        ignore: Vec::new(),
        impute: String::new(),
        behave: behave.to_owned(),
        seed: 1,
    }
}

/// A body as text, where every character counts.
pub(crate) async fn ask_text(client: &Client, target: &str, body: &str) -> Answer {
    let request = client.request(Method::POST, target);
    let request = request.header("content-type", "application/json");
    client.send(request.body(body.to_owned())).await
}
