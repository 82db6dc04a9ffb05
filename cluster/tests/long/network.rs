//! The network between the nodes, as proxies, one before each peer port, that can hold back in either direction,
//! or delay what passes, or break its connections.
//! Invariant: each member is reached through its proxy alone, since its address in the cluster is the proxy's.

use std::time::Duration;

use kvstore_client::wire::cluster::NewMember;
use tokio::net::TcpListener;

use crate::harness::{Cluster, SOON, wait_until};
use crate::links::{Links, Weather};

pub(crate) struct Network(Links);

impl Network {
    /// Puts a proxy before every node of a running cluster.
    pub(crate) async fn of(cluster: &Cluster) -> Self {
        let links = Links::new();
        for node in &cluster.config.nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let member = NewMember {
                id: node.id,
                peer_address: listener.local_addr().unwrap().to_string(),
                client_address: node.client.clone(),
            };
            links.before_peers(node.id, listener, node.peer.clone());
            move_member(cluster, &member).await;
        }
        Self(links)
    }

    /// These nodes are alone, each for itself.
    pub(crate) fn isolate(&self, ids: &[u64]) {
        self.0.set(Weather::isolated(ids));
    }

    /// Nothing reaches this node; what it says still reaches the others.
    pub(crate) fn deafen(&self, id: u64) {
        let others = (1..=3).filter(|other| *other != id);
        self.0.set(Weather {
            deaf: others.map(|other| (other, id)).collect(),
            ..Weather::default()
        });
    }

    /// What this node says reaches nobody; it still hears the others.
    pub(crate) fn mute(&self, id: u64) {
        let others = (1..=3).filter(|other| *other != id);
        self.0.set(Weather {
            deaf: others.map(|other| (id, other)).collect(),
            ..Weather::default()
        });
    }

    pub(crate) fn slow(&self, delay: Duration) {
        self.0.set(Weather {
            delay,
            ..Weather::default()
        });
    }

    /// Connections break in the middle of what they carry, as they do when much is lost.
    pub(crate) fn break_one_in(&self, pieces: u64) {
        self.0.set(Weather {
            break_one_in: pieces,
            ..Weather::default()
        });
    }

    pub(crate) fn heal(&self) {
        self.0.heal();
    }
}

/// A member's address changes by letting it go and taking it in again.
async fn move_member(cluster: &Cluster, member: &NewMember) {
    let client = cluster.client();
    let steps = async || {
        let members = client.cluster().await?.members;
        let present = members.iter().find(|present| present.id == member.id);
        match present {
            Some(present) if present.peer_address != member.peer_address => {
                client.member_remove(member.id).await?;
            }
            None => client.member_add(member).await?,
            Some(present) if !present.voter => client.member_promote(member.id).await?,
            Some(_) => return Ok(true),
        }
        Ok::<bool, kvstore_client::Error>(false)
    };
    wait_until(
        "the member is reached through its proxy",
        SOON,
        async || match steps().await {
            Ok(true) => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await;
}
