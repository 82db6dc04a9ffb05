//! Three nodes of the store, each a process of this binary.
//! Invariant: their configuration is the default one, but for what the caller changes and the addresses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::wire::cluster::{NodeStatus, Role};
use service::config::{Config, NodeConfig};

use super::{Network, SERVERS, Server, Start, addresses, wait_for};

const READY_DEADLINE: Duration = Duration::from_mins(1);
const ASK_DEADLINE: Duration = Duration::from_millis(500);
const PORTS: [u16; 2] = [7001, 7101];

pub(crate) struct Store {
    pub(crate) servers: Vec<Server>,
    pub(crate) config: Config,
    pub(crate) config_file: PathBuf,
    http: reqwest::Client,
    token: String,
}

impl Store {
    /// Hosts from `hosts_from` on are theirs.
    pub(crate) async fn start(
        folder: &Path,
        network: Option<&Network>,
        hosts_from: usize,
        change: impl FnOnce(&mut Config),
    ) -> anyhow::Result<Self> {
        Self::start_with(folder, network, hosts_from, change, |_| Vec::new()).await
    }

    /// The same, with variables for the environment of each node.
    pub(crate) async fn start_with(
        folder: &Path,
        network: Option<&Network>,
        hosts_from: usize,
        change: impl FnOnce(&mut Config),
        environment: impl Fn(usize) -> Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let mut config = Config {
            data: folder.join("data"),
            nodes: Vec::new(),
            ..Config::default()
        };
        for (id, [client, peer]) in (1..).zip(addresses(network, hosts_from, PORTS)?) {
            config.nodes.push(NodeConfig {
                id,
                client,
                peer,
                role: service::config::Role::Voter,
                client_listen: None,
                peer_listen: None,
            });
        }
        // Namespaces keep strangers out.
        config.tls.plain_beyond_loopback = true;
        change(&mut config);
        let config_file = folder.join("cluster.toml");
        std::fs::write(&config_file, config.to_toml()?).context("write the configuration")?;
        let secrets = service::secrets::load_or_create(&config.data).context("make the secrets")?;
        let token = secrets
            .token("root")
            .context("find the token of root")?
            .expose()
            .to_owned();
        let program = std::env::current_exe().context("find this program's own file")?;
        let mut servers = Vec::new();
        for (index, node) in config.nodes.iter().enumerate() {
            let arguments = [
                "--config",
                &config_file.display().to_string(),
                "node",
                "--id",
                &node.id.to_string(),
            ];
            servers.push(Server::new(Start {
                name: node.name(),
                program: program.clone(),
                arguments: arguments.map(str::to_owned).to_vec(),
                environment: environment(index),
                namespace: network.map(|network| network.namespace(hosts_from + index)),
                log: folder.join(format!("{}.log", node.name())),
            }));
        }
        for server in &mut servers {
            server.start()?;
        }
        let http = service::http::client(ASK_DEADLINE);
        let store = Self {
            servers,
            config,
            config_file,
            http,
            token,
        };
        store.ready().await?;
        Ok(store)
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.config.client_addresses()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(Server::pid).collect()
    }

    /// Waits until every node can do its work and all name the same leader; answers its place among the servers.
    pub(crate) async fn ready(&self) -> anyhow::Result<usize> {
        self.ready_within(READY_DEADLINE).await
    }

    pub(crate) async fn ready_within(&self, deadline: Duration) -> anyhow::Result<usize> {
        let found = wait_for("all nodes to be ready", deadline, async || {
            let mut leader = None;
            for address in self.endpoints() {
                let url = format!("http://{address}/readyz");
                let answer = self.http.get(url).send().await.ok()?;
                answer.error_for_status().ok()?;
                let status = self.status(&address).await?;
                if status.role == Role::Leader {
                    leader = Some(status.id);
                }
            }
            usize::try_from(leader? - 1).ok()
        });
        let found = found.await;
        found.with_context(|| {
            let words = self
                .servers
                .iter()
                .map(|server| format!("{}: {}", server.name(), server.last_words()));
            words.collect::<Vec<_>>().join("\n")
        })
    }

    async fn status(&self, address: &str) -> Option<NodeStatus> {
        let request = self.http.get(format!("http://{address}/v1/status"));
        let answer = request.bearer_auth(&self.token).send().await.ok()?;
        answer.json().await.ok()
    }
}

const _: () = assert!(SERVERS == 3, "ids and addresses are made for three");
