//! A cluster for one row of the table, run by this same program in a folder of its own.
//! Invariant: nothing of it is left when it has ended, nor when the run was interrupted.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::join_all;
use kvstore_client::KvClient;
use serde_json::Value;
use service::config::{Config, MirrorConfig, MirrorEngine, NodeConfig, OnLoss, Role};
use service::secrets;
use tokio::time::{Duration, Instant};

use super::Setup;
use crate::arena::Folder;
use crate::launcher::control::{self, Answer, Request};
use crate::launcher::place::Place;
use crate::launcher::{Action, System};

pub(super) const MIRROR: &str = "mirror-bench";
const LEVEL: Duration = Duration::from_secs(30);

pub(super) struct Scratch {
    /// Dropped before the folder, in which it writes until then.
    system: System,
    folder: Folder,
    pub(super) config: Config,
}

/// Free at this moment; nobody else is expected to take them in the next.
fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let listeners: std::io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let listeners = listeners.context("find free ports")?;
    let addresses = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.to_string()));
    addresses.collect()
}

pub(super) fn configuration(folder: &Path, setup: &Setup) -> anyhow::Result<Config> {
    let nodes = setup.voters + setup.learners;
    let mut addresses = free_addresses(2 * usize::try_from(nodes)? + 1)?.into_iter();
    let mut next = || addresses.next().context("there are enough addresses");
    let mut config = Config {
        data: folder.join("data"),
        nodes: Vec::new(),
        ..Config::default()
    };
    config.console.address = String::new();
    for id in 1..=nodes {
        let role = if id <= setup.voters {
            Role::Voter
        } else {
            Role::Learner
        };
        config.nodes.push(NodeConfig {
            id,
            client: next()?,
            peer: next()?,
            role,
            client_listen: None,
            peer_listen: None,
        });
    }
    if let Some(mode) = setup.mirror {
        config.mirrors.push(MirrorConfig {
            name: MIRROR.to_owned(),
            address: next()?,
            engine: MirrorEngine::Sqlite,
            mode,
            // Of a synchronous one: what is acknowledged without it would be counted as if it had it.
            on_loss: OnLoss::Block,
            interval_ms: 100,
        });
    }
    Ok(config)
}

impl Scratch {
    pub(super) async fn start(data: &Path, setup: &Setup) -> anyhow::Result<Self> {
        let folder = Folder::inside(data, "redundancy")?;
        let config = configuration(folder.path(), setup)?;
        let file = folder.path().join("cluster.toml");
        std::fs::write(&file, config.to_toml()?).context("write its configuration")?;
        let system = System::start(Some(&file), &config.data).await?;
        let scratch = Self {
            system,
            folder,
            config,
        };
        scratch.mirror_is_level().await?;
        Ok(scratch)
    }

    /// A command that answers in JSON.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let answer = self.system.run(arguments).await?;
        serde_json::from_slice(&answer).context("read its answer")
    }

    pub(super) async fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.system.run(&["kill", name]).await.map(drop)
    }

    /// All in one step: who died a little later could have written meanwhile what the others no longer can.
    pub(super) async fn kill_all(&self, names: &[String]) -> anyhow::Result<()> {
        let place = Place::new(&self.config.data);
        let killed = names.iter().map(async |name| {
            let (action, name) = (Action::Kill, name.clone());
            match control::ask(&place, &Request::Act { action, name }).await? {
                Some(Answer::Done(_)) => Ok(()),
                other => bail!("the launcher did not kill it: {other:?}"),
            }
        });
        for (name, killed) in names.iter().zip(join_all(killed).await) {
            killed.with_context(|| format!("kill {name}"))?;
        }
        Ok(())
    }

    /// Who leads, by the name of its process.
    pub(super) async fn leader(&self) -> anyhow::Result<String> {
        let status = self.run(&["status"]).await?;
        let leader = status["leader"].as_str().context("nobody leads")?;
        Ok(leader.to_owned())
    }

    pub(super) fn data_of(&self, name: &str) -> PathBuf {
        self.config.data.join(name)
    }

    pub(super) fn client(&self) -> anyhow::Result<KvClient> {
        self.client_of(self.config.client_addresses())
    }

    pub(super) fn client_of(&self, nodes: Vec<String>) -> anyhow::Result<KvClient> {
        let secrets = secrets::load(&self.config.data)?;
        let root = secrets.token("root").context("there is a root token")?;
        Ok(KvClient::builder(nodes).token(root.expose()).build()?)
    }

    async fn mirror_is_level(&self) -> anyhow::Result<()> {
        let client = self.client()?;
        let until = Instant::now() + LEVEL;
        while !self.config.mirrors.is_empty() {
            let mirrors = client.mirrors().await?;
            if mirrors.iter().any(|mirror| mirror.state == "ok") {
                break;
            }
            ensure!(
                Instant::now() < until,
                "the mirror does not come level: {mirrors:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(super) async fn end(self) -> anyhow::Result<()> {
        let Self { system, folder, .. } = self;
        let ended = system.stop().await;
        drop(folder);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::super::SETUPS;
    use super::*;

    #[test]
    fn what_a_synchronous_mirror_does_not_have_is_not_acknowledged() {
        for setup in &SETUPS {
            let config = configuration(Path::new("/nowhere"), setup).unwrap();
            assert_eq!(config.mirrors.len(), usize::from(setup.mirror.is_some()));
            let mut mirrors = config.mirrors.iter();
            assert!(mirrors.all(|mirror| mirror.on_loss == OnLoss::Block));
        }
    }
}
