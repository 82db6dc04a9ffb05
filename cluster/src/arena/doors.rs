//! Doors before the ports of all nodes, so that every connection to them, of nodes and of clients, is a link.
//! Invariant: a door's port is held from the moment it is known, before anything stands behind it.

use anyhow::Context as _;
use service::config::Config;
use tokio::net::TcpListener;

use super::{Links, SERVERS};

struct Door {
    listener: TcpListener,
    address: String,
}

impl Door {
    async fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("find a free port")?;
        let address = listener.local_addr().context("find a free port")?.to_string();
        Ok(Self { listener, address })
    }
}

/// Two for each node: one for its peers, one for its clients.
pub(crate) struct Doors(Vec<[Door; 2]>);

impl Doors {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let mut doors = Vec::new();
        for _ in 0..SERVERS {
            doors.push([Door::open().await?, Door::open().await?]);
        }
        Ok(Self(doors))
    }

    /// From now on the nodes are known by their doors, and listen where they were known before.
    pub(crate) fn put_before_nodes(self, config: &mut Config, links: &Links) {
        for (node, [peers, clients]) in config.nodes.iter_mut().zip(self.0) {
            links.before_peers(node.id, peers.listener, node.peer.clone());
            node.peer_listen = Some(std::mem::replace(&mut node.peer, peers.address));
            links.before_clients(node.id, clients.listener, node.client.clone());
            node.client_listen = Some(std::mem::replace(&mut node.client, clients.address));
        }
    }
}
