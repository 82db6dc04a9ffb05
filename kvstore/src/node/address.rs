//! Whether the others look for this node where its configuration says that it is. They go by the membership alone, which
//! no change of a file reaches and no command changes: a node that began at another address would never be found again.
//! Invariant: only what is surely another place is refused; names that cannot be resolved now may be of the same one.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use service::config::NodeConfig;

use super::Settings;
use crate::raft::types::{Member, Raft};

/// A start waits no longer for somebody who knows what a name stands for.
const RESOLVED: Duration = Duration::from_secs(3);

/// A fault of the configuration.
#[derive(Debug, thiserror::Error)]
#[error(
    "the others look for node {id} at {known}, and the configuration has peer = \"{configured}\" for it, where nobody would \
     find it: an address that the cluster knows stays. Write peer = \"{known}\" back (peer_listen may say where else it \
     listens). To move this node alone, give the new place a new number: `menagerie kv member replace {id} NEW --client \
     HOST:PORT --peer HOST:PORT`. To move all, `menagerie kv snapshot FILE`, and `menagerie --data NEW kv restore FILE` \
     with the new configuration"
)]
pub struct Moved {
    id: u64,
    known: String,
    configured: String,
}

/// To be asked as soon as Raft has begun, which has read the membership from this node's disk by then.
pub(super) async fn check(raft: &Raft, settings: &Settings) -> anyhow::Result<()> {
    match settings.config.node(settings.id) {
        Some(node) => check_node(raft, node).await,
        None => Ok(()),
    }
}

async fn check_node(raft: &Raft, node: &NodeConfig) -> anyhow::Result<()> {
    let id = node.id;
    let known = raft.with_raft_state(move |state| {
        let membership = state.membership_state.effective().membership();
        membership.get_node(&id).cloned()
    });
    match known.await? {
        Some(known) => Ok(compare(&known, node).await?),
        // It has not joined yet, or was removed.
        None => Ok(()),
    }
}

async fn compare(known: &Member, node: &NodeConfig) -> Result<(), Moved> {
    if known.client_address != node.client {
        tracing::warn!(
            node.id = node.id,
            known = known.client_address,
            configured = node.client,
            "clients that ask the cluster are told the address of this node that it was taken in with, and not the \
             configured one"
        );
    }
    if known.peer_address == node.peer {
        return Ok(());
    }
    let places = tokio::join!(resolve(&known.peer_address), resolve(&node.peer));
    match places {
        (Ok(before), Ok(now)) if before.is_disjoint(&now) => Err(Moved {
            id: node.id,
            known: known.peer_address.clone(),
            configured: node.peer.clone(),
        }),
        (Ok(_), Ok(_)) => Ok(()),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(
                node.id = node.id,
                known = known.peer_address,
                configured = node.peer,
                %error,
                "the others look for this node at the first address, and whether the second is the same place cannot be \
                 told: if it is not, nobody finds it"
            );
            Ok(())
        }
    }
}

async fn resolve(address: &str) -> io::Result<HashSet<SocketAddr>> {
    let found = tokio::time::timeout(RESOLVED, tokio::net::lookup_host(address)).await?;
    Ok(found?.collect())
}

#[cfg(test)]
mod tests {
    use service::config::Config;

    use super::*;
    use crate::raft::bare::Bare;

    fn at(client: &str, peer: &str) -> NodeConfig {
        NodeConfig {
            client: client.to_owned(),
            peer: peer.to_owned(),
            ..Config::default().nodes[0].clone()
        }
    }

    #[tokio::test]
    async fn a_node_that_moved_is_refused_and_one_with_another_name_for_the_same_place_is_not() {
        let nodes = Bare::cluster(1).await;
        let (raft, known) = (&nodes[0].desk.raft, nodes[0].address.as_str());
        let port = known.strip_prefix("127.0.0.1:").unwrap();
        for same in [known, &format!("localhost:{port}")] {
            check_node(raft, &at(known, same)).await.unwrap();
        }
        // That is for the clients to find out.
        check_node(raft, &at("127.0.0.1:1", known)).await.unwrap();
        // Who knows whether it is not the same.
        check_node(raft, &at(known, "nowhere.invalid:7101"))
            .await
            .unwrap();

        let moved = check_node(raft, &at(known, "127.0.0.1:1")).await.unwrap_err();
        assert!(moved.is::<Moved>(), "{moved:#}");
        let told = moved.to_string();
        for part in [
            "peer = \"127.0.0.1:1\"",
            &format!("look for node 1 at {known}"),
            &format!("Write peer = \"{known}\" back"),
            "kv member replace 1 NEW",
            "kv restore",
        ] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
        // Of another one the cluster knows nothing yet.
        let stranger = NodeConfig {
            id: 2,
            ..at(known, "127.0.0.1:1")
        };
        check_node(raft, &stranger).await.unwrap();
        for node in nodes {
            node.end().await;
        }
    }
}
