//! A configuration that gives a node another peer address than the one the cluster knows it by.
//! Invariant: the node says so and does not start, and goes on once the former address is back.

use crate::harness::{Cluster, Ran, SOON, free_ports};

#[tokio::test]
async fn a_node_under_another_peer_address_is_refused_until_the_former_is_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.client().put("a", "1").await.unwrap();
    // At once, so that the log alone knows the members.
    cluster.kill("n3").await;
    let former = cluster.config.nodes[2].peer.clone();
    let elsewhere = format!("127.0.0.1:{}", free_ports(1)[0]);
    cluster.config.nodes[2].peer.clone_from(&elsewhere);
    cluster.write_config();
    let mut node = cluster.command(&["node", "--id", "3"]);
    let ended = tokio::time::timeout(SOON, node.kill_on_drop(true).output()).await;
    let told = Ran::of(ended.unwrap().unwrap()).fails(2);
    for part in [
        "kv member replace 3 NEW",
        &format!("look for node 3 at {former}"),
        &format!("peer = \"{elsewhere}\""),
    ] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
    cluster.config.nodes[2].peer = former;
    cluster.write_config();
    cluster.start_node("n3").await;
    cluster.wait_for_state("n3", "running").await;
}
