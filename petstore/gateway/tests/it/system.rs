//! A store, a gateway, and registered instances, all in this process.
//! Invariant: a system is handed out once its gateway knows every instance.

use std::net::SocketAddr;
use std::time::Duration;

use kvstore_client::{KvClient, Registration};
use serde_json::Value;
use service::config::GatewayConfig;
use service::tasks::Tasks;
use tokio::net::TcpListener;

use crate::harness::{Client, Cluster, wait_for};
use crate::instance::Instance;

const TTL: Duration = Duration::from_secs(1);

pub(crate) struct System {
    pub(crate) cluster: Cluster,
    pub(crate) shops: Vec<Instance>,
    pub(crate) gateway: SocketAddr,
    pub(crate) tasks: Tasks,
    /// Of each instance, in the order of `shops`.
    registrations: Vec<Tasks>,
}

impl System {
    pub(crate) async fn start(shops: usize) -> Self {
        Self::start_with(shops, |_config| {}).await
    }

    pub(crate) async fn start_with(shops: usize, adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        let cluster = Cluster::start(1).await;
        let mut config = cluster.config();
        adjust(&mut config.gateway);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = listener.local_addr().unwrap();
        let settings = gateway::Settings {
            config,
            name: "gateway".to_owned(),
            secrets: cluster.secrets().clone(),
        };
        let tasks = Tasks::new();
        tasks.spawn(
            "gateway",
            Box::pin(gateway::run(settings, listener, tasks.clone())),
        );
        let mut system = Self {
            cluster,
            shops: Vec::new(),
            gateway,
            tasks,
            registrations: Vec::new(),
        };
        for name in ["shop1", "shop2", "shop3"].into_iter().take(shops) {
            let shop = Instance::start(name).await;
            system.register("petstore", &shop);
            system.shops.push(shop);
        }
        system.knows(shops).await;
        system
    }

    /// One that answers from a copy of the store.
    pub(crate) async fn start_mirror(&mut self) -> Instance {
        let mirror = Instance::start("mirror1").await;
        self.register("mirror", &mirror);
        self.knows(self.shops.len() + 1).await;
        mirror
    }

    /// The token of a service has its name.
    fn register(&mut self, service: &str, instance: &Instance) {
        let tasks = Tasks::new();
        let token = self.cluster.secrets().token(service).unwrap();
        let client = KvClient::builder(self.cluster.addresses())
            .token(token.expose())
            .tasks(tasks.clone())
            .build()
            .unwrap();
        let registration = Registration {
            service: service.to_owned(),
            name: instance.name.to_owned(),
            address: instance.address.to_string(),
            version: "1".to_owned(),
            started_ms: 5,
        };
        tasks.spawn("registration", async move {
            client.keep_registered(registration, TTL).await;
        });
        self.registrations.push(tasks);
    }

    /// Takes the registration back, as an instance does that stops.
    pub(crate) fn unregister(&self, shop: usize) {
        self.registrations[shop].stop();
    }

    pub(crate) async fn knows(&self, count: usize) {
        wait_for("the gateway to know the instances", async || {
            let ready = self.get("/readyz").await;
            let services = self.services().await;
            let known = services["services"].as_array().map(Vec::len);
            (ready == 200 && known == Some(count))
                .then_some(())
                .ok_or(services)
        })
        .await;
    }

    pub(crate) fn client(&self) -> Client {
        let token = self.cluster.secrets().token("operator").unwrap();
        Client::at(self.gateway, token.expose())
    }

    pub(crate) async fn get(&self, path: &str) -> u16 {
        self.client().get(path).await.status
    }

    pub(crate) async fn services(&self) -> Value {
        self.client().get("/services").await.json()
    }

    /// What the gateway says of the health of each instance.
    pub(crate) async fn health(&self) -> Vec<String> {
        let services = self.services().await;
        let services = services["services"].as_array().unwrap().iter();
        services
            .map(|one| one["health"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn server(&self, query: &str) -> Value {
        let answer = self.client().get(&format!("/getServer{query}")).await;
        let body = answer.json();
        assert_eq!(body["code"], answer.status, "the body repeats the status");
        body
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.tasks.stop();
        for registration in &self.registrations {
            registration.stop();
        }
    }
}
