//! What the experiments are made on: three nodes that reach each other, and are reached, only through links that can be
//! cut and delayed, and that count. Invariant: nothing of it is left once it is dropped, processes first.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kvstore_client::KvClient;
use service::config::{MirrorConfig, MirrorEngine, MirrorMode, OnLoss};

use crate::arena::{Doors, Folder, Links, Server, Start, Store, free_address};

const MIRROR: &str = "mirror";
const DEADLINE: Duration = Duration::from_secs(10);
/// So small that a slow reader needs no gigabytes to be told.
const WATCH_BUFFER_BYTES_MAX: usize = 1 << 20;

pub(super) struct Ground {
    pub(super) store: Store,
    /// Of all nodes, with the rights of root.
    pub(super) client: KvClient,
    pub(super) links: Links,
    folder: Folder,
}

impl Ground {
    pub(super) async fn open(data: &Path) -> anyhow::Result<Self> {
        let folder = Folder::beside(data)?;
        let links = Links::new();
        let doors = Doors::open().await?;
        let mirror = free_address()?;
        let change = |config: &mut service::config::Config| {
            doors.put_before_nodes(config, &links);
            config.limits.watch_buffer_bytes_max = WATCH_BUFFER_BYTES_MAX;
            config.mirrors = vec![MirrorConfig {
                name: MIRROR.to_owned(),
                address: mirror,
                engine: MirrorEngine::Sqlite,
                mode: MirrorMode::Async,
                on_loss: OnLoss::Degrade,
                interval_ms: 50,
            }];
        };
        let store = Store::start(folder.path(), None, 0, change).await?;
        let client = client(store.endpoints(), store.token())?;
        Ok(Self {
            store,
            client,
            links,
            folder,
        })
    }

    pub(super) fn name(&self, index: usize) -> &str {
        self.store.servers[index].name()
    }

    pub(super) fn id(&self, index: usize) -> u64 {
        self.store.config.nodes[index].id
    }

    /// A client that knows this node alone.
    pub(super) fn only(&self, index: usize) -> anyhow::Result<KvClient> {
        client(
            vec![self.store.config.nodes[index].client.clone()],
            self.store.token(),
        )
    }

    /// A client of all nodes but this one.
    pub(super) fn without(&self, index: usize) -> anyhow::Result<KvClient> {
        let others = self.store.config.nodes.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        client(
            others.map(|(_, node)| node.client.clone()).collect(),
            self.store.token(),
        )
    }

    /// A client of this node alone that speaks as somebody else.
    pub(super) fn as_somebody(&self, index: usize, token: &str) -> anyhow::Result<KvClient> {
        client(vec![self.store.config.nodes[index].client.clone()], token)
    }

    /// The mirror in SQLite, started; it ends when it is dropped.
    pub(super) fn start_mirror(&self) -> anyhow::Result<(Server, String)> {
        let config = self.store.config_file.display().to_string();
        let mut server = Server::new(Start {
            name: MIRROR.to_owned(),
            program: std::env::current_exe().context("find this program's own file")?,
            arguments: ["--config", &config, "mirror", "--name", MIRROR]
                .map(str::to_owned)
                .to_vec(),
            environment: Vec::new(),
            namespace: None,
            log: self.folder.path().join("mirror.log"),
        });
        server.start()?;
        Ok((server, self.store.config.mirrors[0].address.clone()))
    }
}

fn client(endpoints: Vec<String>, token: &str) -> anyhow::Result<KvClient> {
    let builder = KvClient::builder(endpoints).token(token);
    Ok(builder.deadline(DEADLINE).build()?)
}
