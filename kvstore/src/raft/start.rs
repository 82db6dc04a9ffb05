//! How a cluster begins, and how an empty node finds out what it is.
//!
//! The voter with the lowest number makes the cluster, and only when every voter has said that it is
//! empty too. An empty node whose number the cluster knows under another disk is refused. What the configuration says
//! of who belongs to it holds for the beginning alone: whoever is missing later was removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use service::config::{Config, Role};

use super::desk::Desk;
use super::identity::random_name;
use super::network::handshake::{HandshakeError, Refused};
use super::network::link::AskError;
use super::network::message::{Ask, MemberRefused, NotNow, Told};
use super::types::Member;
use super::view;
use crate::command::{Access, Action, Rule};

const PAUSE: Duration = Duration::from_millis(100);

/// The tokens a new cluster starts with: name, SHA-256 of the secret, rules.
pub type TokenSeeds = Vec<(String, [u8; 32], Vec<Rule>)>;

/// Rules of the token that may do everything.
pub fn root_rules() -> Vec<Rule> {
    vec![Rule {
        prefix: bytes::Bytes::new(),
        access: Access::Root,
    }]
}

/// Runs until this node belongs to a cluster. `Err` = it may not, ever.
pub async fn join_or_make(desk: &Arc<Desk>, config: &Config) -> anyhow::Result<()> {
    let trust = desk.peers.trust();
    let me = trust.identity.id();
    let voters: BTreeMap<u64, Member> = config
        .nodes
        .iter()
        .filter(|node| node.role == Role::Voter)
        .map(|node| {
            (
                node.id,
                Member {
                    peer_address: node.peer.clone(),
                    client_address: node.client.clone(),
                },
            )
        })
        .collect();
    let makes_it = voters.keys().next() == Some(&me);
    let mut said = String::new();
    loop {
        // The cluster has reached this node: an append or a vote told it the cluster's id.
        if desk.raft.is_initialized().await? || (trust.identity.cluster_id().is_some() && !makes_it) {
            return Ok(());
        }
        let waiting = probe_all(desk, config, me).await?;
        if makes_it && waiting.is_empty() {
            let cluster_id = trust.identity.cluster_id().unwrap_or_else(random_name);
            trust.identity.adopt_cluster(&cluster_id)?;
            tracing::info!(
                cluster.id = cluster_id,
                "all voters are empty: a new cluster begins"
            );
            desk.raft.initialize(voters).await?;
            return Ok(());
        }
        let text = waiting.join(", ");
        if text != said {
            tracing::info!(
                "an empty node waits for {}",
                if text.is_empty() {
                    "the cluster to reach it"
                } else {
                    &text
                }
            );
            said = text;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks every other configured node; answers those that are not (yet) known to be empty voters.
async fn probe_all(desk: &Arc<Desk>, config: &Config, me: u64) -> anyhow::Result<Vec<String>> {
    let mut waiting = Vec::new();
    for node in config.nodes.iter().filter(|node| node.id != me) {
        let answer = tokio::time::timeout(
            Duration::from_secs(1),
            desk.peers.link(node.id, &node.peer).ask(&Ask::Probe),
        )
        .await;
        match answer {
            Ok(Ok(Told::Probe { empty: true })) => {}
            Ok(Ok(_)) => waiting.push(format!("{} (it belongs to a cluster)", node.name())),
            Ok(Err(AskError::NotSent(Some(HandshakeError::Refused(Refused::DiskReused))))) => anyhow::bail!(
                "node-id-reused: the cluster knows node {me} with another disk. A node that lost its disk has forgotten what it \
                 acknowledged; remove it from the cluster and let it join under a new id"
            ),
            Ok(Err(AskError::NotSent(Some(HandshakeError::Refused(refused))))) => {
                waiting.push(format!("{} ({refused})", node.name()));
            }
            Ok(Err(_)) | Err(_) if node.role == Role::Learner => {}
            Ok(Err(_)) | Err(_) => waiting.push(format!("{} (no answer)", node.name())),
        }
    }
    Ok(waiting)
}

/// The leader's first duties: who else belongs to the cluster, its id and tokens, and the disks of its members.
pub async fn seed(desk: &Desk, config: &Config, tokens: &TokenSeeds) -> Result<(), NotNow> {
    if desk.machine.state().cluster_id.is_empty()
        && let Some(cluster_id) = desk.peers.trust().identity.cluster_id()
    {
        // Before the tokens: while there are none, nobody can have removed a learner that is not a member.
        add_configured_learners(desk, config).await?;
        desk.propose_own(Action::Seed {
            cluster_id,
            tokens: tokens.clone(),
        })
        .await?;
    }
    let identity = &desk.peers.trust().identity;
    let bound = |id| (desk.peers.trust().bound_disk)(id).is_some();
    if !bound(identity.id()) {
        desk.bind(identity.id(), identity.disk())
            .await
            .map_err(|_refused| NotNow::Unknown)?;
    }
    for (id, member) in desk.others() {
        if !bound(id)
            && let Err(refused) = desk.bind_by_asking(id, &member.peer_address).await
        {
            tracing::debug!(node.id = id, ?refused, "this member's disk is not bound yet");
        }
    }
    Ok(())
}

/// What was not decided is tried again with all the rest of the seed; a learner that does not run is a member all the
/// same, whose disk is bound once it does.
async fn add_configured_learners(desk: &Desk, config: &Config) -> Result<(), NotNow> {
    let known = view::view(&desk.raft).members;
    for node in config
        .nodes
        .iter()
        .filter(|node| node.role == Role::Learner && !known.contains_key(&node.id))
    {
        let added = desk.add_learner(node.id, node.peer.clone(), node.client.clone());
        match added.await {
            Ok(()) => {}
            Err(MemberRefused::NotLeader) => return Err(NotNow::NotLeader),
            Err(MemberRefused::Unknown | MemberRefused::InProgress) => return Err(NotNow::Unknown),
            Err(refused) => {
                tracing::warn!(
                    node.id = node.id,
                    ?refused,
                    "a configured learner is not added: `menagerie kv member add` does it once this is mended"
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use service::config::NodeConfig;

    use super::*;
    use crate::raft::bare::{Bare, calm};

    /// Where nobody is.
    fn learner(id: u64) -> NodeConfig {
        NodeConfig {
            id,
            client: format!("127.0.0.1:{id}"),
            peer: format!("127.0.0.1:{id}"),
            role: Role::Learner,
            client_listen: None,
            peer_listen: None,
        }
    }

    /// Some disk is not bound, so it is due again and again.
    #[tokio::test]
    async fn a_configured_learner_belongs_to_the_beginning_and_stays_away_once_it_is_removed() {
        let nodes = Bare::cluster(1).await;
        let desk = &nodes[0].desk;
        desk.peers.trust().identity.adopt_cluster("ours").unwrap();
        let config = Config {
            nodes: vec![learner(8), learner(9)],
            ..calm()
        };
        let members = || -> Vec<u64> { view::view(&desk.raft).members.into_keys().collect() };
        // A leader that ended between two steps has added one of them.
        let first = learner(8);
        desk.add_learner(8, first.peer, first.client).await.unwrap();
        for _again in 0..2 {
            seed(desk, &config, &TokenSeeds::new()).await.unwrap();
            assert_eq!(members(), [1, 8, 9]);
        }
        assert_eq!(desk.machine.state().cluster_id, "ours");
        desk.remove(9).await.unwrap();
        seed(desk, &config, &TokenSeeds::new()).await.unwrap();
        assert_eq!(members(), [1, 8]);
        for node in nodes {
            node.end().await;
        }
    }
}
