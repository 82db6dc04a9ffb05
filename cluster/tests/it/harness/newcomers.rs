//! Nodes beyond the three that the launcher starts: made known to the cluster and started by hand.
//! Invariant: they end with the handle of their process.

use std::fs::File;

use kvstore_client::KvClient;
use kvstore_client::wire::cluster::{Cluster as Members, Member, NewMember};
use service::config::{Config, NodeConfig, Role};
use tokio::process::Child;

use super::cluster::Cluster;
use super::wait::{SOON, wait_until};

/// Three voters run; further nodes are configured as ones that only learn, and are started by hand.
pub(crate) async fn three_and_newcomers(newcomers: usize) -> Cluster {
    three_with_newcomers(newcomers, |config| {
        config.store.snapshot_log_entries = 200;
        config.store.log_keep_entries = 20;
    })
    .await
}

pub(crate) async fn three_with_newcomers(newcomers: usize, change: impl FnOnce(&mut Config)) -> Cluster {
    let mut cluster = Cluster::with(3 + newcomers as u64, change);
    let new = cluster.config.nodes.split_off(3);
    cluster.write_config();
    cluster.up().await;
    cluster
        .config
        .nodes
        .extend(new.into_iter().map(|node| NodeConfig {
            role: Role::Learner,
            ..node
        }));
    cluster.write_config();
    cluster
}

/// The launcher does not know it.
pub(crate) fn start_newcomer(cluster: &Cluster, id: u64) -> Child {
    let log = File::create(cluster.data().join(format!("logs/n{id}.log"))).unwrap();
    let mut command = cluster.command(&["node", "--id", &id.to_string()]);
    command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().unwrap()
}

pub(crate) fn member_of(cluster: &Cluster, id: u64) -> NewMember {
    let node = cluster.config.node(id).unwrap();
    NewMember {
        id,
        peer_address: node.peer.clone(),
        client_address: node.client.clone(),
    }
}

/// Adds a node that runs, waits until it has caught up, and gives it its vote.
pub(crate) async fn let_in(cluster: &Cluster, client: &KvClient, id: u64) {
    client.member_add(&member_of(cluster, id)).await.unwrap();
    wait_for_member(client, id, "the newcomer has caught up", |_, member| {
        member.is_some_and(|member| !member.voter && member.lag.is_some_and(|lag| lag < 100))
    })
    .await;
    wait_until("the newcomer is promoted", SOON, async || {
        let promoted = client.member_promote(id).await;
        promoted.map_err(|error| format!("{error:?}"))
    })
    .await;
    wait_for_member(client, id, "the newcomer votes", |_, member| {
        member.is_some_and(|member| member.voter)
    })
    .await;
}

pub(crate) async fn wait_for_member(
    client: &KvClient,
    id: u64,
    what: &str,
    holds: impl Fn(&Members, Option<&Member>) -> bool,
) {
    wait_until(what, SOON, async || {
        let members = client.cluster().await.map_err(|error| format!("{error:?}"))?;
        let member = members.members.iter().find(|member| member.id == id);
        holds(&members, member)
            .then_some(())
            .ok_or_else(|| format!("{members:?}"))
    })
    .await;
}
