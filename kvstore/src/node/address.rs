//! Whether the others look for this node where its configuration says that it is. They go by the membership, which no
//! change of a file reaches: a node that is moved by its configuration alone listens where nobody asks for it.
//! Invariant: this is only told, since this node's own membership may be an old one, and names may be of the same place.

use service::config::NodeConfig;

use super::Settings;
use crate::raft::types::{Member, Raft};

/// To be called as soon as Raft has begun, which has read the membership from this node's disk by then.
pub(super) async fn tell_if_moved(raft: &Raft, settings: &Settings) -> anyhow::Result<()> {
    let id = settings.id;
    let known = raft.with_raft_state(move |state| {
        let membership = state.membership_state.effective().membership();
        membership.get_node(&id).cloned()
    });
    // Without one it has not joined yet, or was removed.
    if let (Some(known), Some(configured)) = (known.await?, settings.config.node(id)) {
        for told in differences(&known, configured) {
            tracing::warn!(
                node.id = id,
                known = told.known,
                configured = told.configured,
                "{}",
                told.means
            );
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Difference<'a> {
    known: &'a str,
    configured: &'a str,
    means: &'static str,
}

fn differences<'a>(known: &'a Member, configured: &'a NodeConfig) -> Vec<Difference<'a>> {
    let peer = Difference {
        known: &known.peer_address,
        configured: &configured.peer,
        means: "this node was taken in under another peer address, where the others look for it, unless it has been taken \
                in anew since (`menagerie kv member ls` shows the node as unreachable then). Write the former one back, or \
                move it: `menagerie kv member replace`",
    };
    let client = Difference {
        known: &known.client_address,
        configured: &configured.client,
        means: "clients that ask the cluster for its members are told the address under which this node was taken in",
    };
    let both = [peer, client].into_iter();
    both.filter(|one| one.known != one.configured).collect()
}

#[cfg(test)]
mod tests {
    use service::config::Config;

    use super::*;

    #[test]
    fn a_node_that_moved_is_told_where_it_is_looked_for() {
        let node = |client: &str, peer: &str| NodeConfig {
            client: client.to_owned(),
            peer: peer.to_owned(),
            ..Config::default().nodes[0].clone()
        };
        let known = Member {
            peer_address: "a:2".to_owned(),
            client_address: "a:1".to_owned(),
        };
        assert_eq!(differences(&known, &node("a:1", "a:2")), []);
        for (moved, expected) in [
            (node("a:1", "b:2"), vec![("a:2", "b:2")]),
            (node("b:1", "a:2"), vec![("a:1", "b:1")]),
            (node("b:1", "b:2"), vec![("a:2", "b:2"), ("a:1", "b:1")]),
        ] {
            let told = differences(&known, &moved).into_iter();
            let told: Vec<_> = told.map(|one| (one.known, one.configured)).collect();
            assert_eq!(told, expected);
        }
    }
}
