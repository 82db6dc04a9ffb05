//! `menagerie kv` on the cluster itself: leader, members, hashes, status, tokens, compaction.
//! Invariant: what the command line says of the cluster is what the cluster says of itself.

use serde_json::Value;

use crate::harness::{Cluster, SOON, wait_until};

#[tokio::test]
async fn leadership_is_shown_and_handed_over() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    assert_eq!(cluster.run(&["kv", "leader"]).await.ok(), format!("{old}\n"));
    let to = cluster.follower().await;
    cluster.run(&["kv", "leader", "--to", &to]).await.ok();
    wait_until("the new leader leads", SOON, async || {
        let told = cluster.run(&["kv", "leader", "--json"]).await.json();
        if told["leader"] == to.as_str() {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn members_come_and_go() {
    let mut cluster = Cluster::new(4);
    let fourth = cluster.config.nodes.pop().unwrap();
    cluster.write_config();
    cluster.up().await;
    let before = cluster.run(&["kv", "member", "ls", "--json"]).await.json();
    assert_eq!(before["members"].as_array().unwrap().len(), 3);

    cluster.client().put("a", "1").await.unwrap();
    let (id, client, peer) = (fourth.id.to_string(), fourth.client.clone(), fourth.peer.clone());
    cluster
        .run(&["kv", "member", "add", &id, "--client", &client, "--peer", &peer])
        .await
        .ok();
    cluster.config.nodes.push(fourth);
    cluster.write_config();
    // It serves although nothing can be written to its log, as on a full disk.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let node = cluster
        .command(&["node", "--id", &id])
        .stderr(writer)
        .kill_on_drop(true)
        .spawn();
    let _node = node.unwrap();
    let member = async || {
        let members = cluster.run(&["kv", "member", "ls", "--json"]).await.json();
        let members = members["members"].as_array().unwrap().clone();
        members.into_iter().find(|member| member["id"] == 4)
    };
    wait_until("the learner has caught up and gets its vote", SOON, async || {
        let ran = cluster.run(&["kv", "member", "promote", &id]).await;
        if ran.code == Some(0) {
            Ok(())
        } else {
            Err(ran.stderr)
        }
    })
    .await;
    wait_until("every node has heard of the vote", SOON, async || {
        let seen = member().await.unwrap_or_default();
        if seen["voter"] == true {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
    let own = cluster.client_of(vec![client]);
    let local = own.get("a").await.unwrap().unwrap();
    assert_eq!(local.bytes(), "1");

    // The removed node itself may never hear of it, so it is no longer asked.
    cluster.config.nodes.pop();
    cluster.write_config();
    cluster.run(&["kv", "member", "remove", &id]).await.ok();
    wait_for_members(&cluster, 3).await;
    let table = cluster.run(&["kv", "member", "ls"]).await.ok();
    assert_eq!(table.lines().count(), 4, "{table}");
}

/// Waits until every node of the configuration counts so many members.
async fn wait_for_members(cluster: &Cluster, count: usize) {
    for node in &cluster.config.nodes {
        wait_until(
            &format!("{} has heard of the change", node.name()),
            SOON,
            async || {
                let seen = cluster.client_of(vec![node.client.clone()]).cluster().await;
                let seen = seen.map_err(|error| error.to_string())?;
                if seen.members.len() == count {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn all_nodes_hold_the_same() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    for n in 0..20 {
        client.put(&format!("k/{}", n % 7), format!("{n}")).await.unwrap();
    }
    let revision = client.revision().await.unwrap();
    let all = cluster.run(&["kv", "hash", "--all-nodes", "--json"]).await.json();
    assert_eq!(all["equal"], true);
    assert_eq!(all["nodes"].as_array().unwrap().len(), 3);
    let one = cluster
        .run(&["kv", "hash", "--revision", &revision.to_string(), "--json"])
        .await
        .json();
    assert_eq!(one["hash"], all["nodes"][0]["hash"]);
    let told = cluster.run(&["kv", "hash", "--all-nodes"]).await.ok();
    assert!(told.contains(&format!("equal at revision {revision}")), "{told}");
}

#[tokio::test]
async fn status_shows_every_node_also_one_that_is_down() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let down = cluster.follower().await;
    cluster.kill(&down).await;
    let status = cluster.run(&["kv", "status", "--json"]).await.json();
    let role = |name: &str| {
        let nodes = status["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name).unwrap();
        node["role"].as_str().unwrap().to_owned()
    };
    assert_eq!(role(&leader), "leader");
    assert_eq!(role(&down), "unreachable");
    let table = cluster.run(&["kv", "status"]).await.ok();
    assert_eq!(table.lines().count(), 4, "{table}");
}

#[tokio::test]
async fn tokens_open_what_they_are_made_for() {
    let cluster = Cluster::start(1).await;
    let token = cluster
        .run(&[
            "kv", "token", "put", "guest", "--read", "open/", "--write", "own/",
        ])
        .await
        .ok();
    let file = cluster.folder().join("guest.token");
    std::fs::write(&file, &token).unwrap();
    let file = file.to_str().unwrap();
    cluster.run(&["kv", "put", "open/a", "1"]).await.ok();
    assert_eq!(
        cluster
            .run(&["kv", "get", "open/a", "--token-file", file])
            .await
            .ok(),
        "1"
    );
    cluster
        .run(&["kv", "put", "own/a", "2", "--token-file", file])
        .await
        .ok();
    let told = cluster
        .run(&["kv", "put", "open/a", "2", "--token-file", file, "--json"])
        .await
        .fails(1);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["code"], "forbidden");

    let table = cluster.run(&["kv", "token", "ls"]).await.ok();
    assert!(table.contains("guest"), "{table}");
    assert!(
        !table.contains(token.trim_end()),
        "a secret is shown again: {table}"
    );
    cluster.run(&["kv", "token", "del", "guest"]).await.ok();
    let told = cluster
        .run(&["kv", "get", "open/a", "--token-file", file])
        .await
        .fails(1);
    assert!(told.contains("does not know this token"), "{told}");
}

#[tokio::test]
async fn a_key_goes_with_a_change_or_is_refused() {
    let cluster = Cluster::start(1).await;
    for value in ["1", "2"] {
        cluster.run(&["kv", "put", "a", value]).await.ok();
    }
    let keyed = async |arguments: &[&str]| {
        let key = ["kv", "--idempotency-key", "once"];
        cluster.run(&[&key[..], arguments].concat()).await
    };
    keyed(&["compact", "1"]).await.ok();
    for other in [&["compact", "2"][..], &["member", "promote", "1"]] {
        let told = keyed(other).await.fails(1);
        assert!(told.contains("idempotency-key-reused"), "{other:?}: {told}");
    }
    let reading = cluster.folder().join("reading.json");
    std::fs::write(&reading, r#"{"then": [{"get": {"key": "a"}}]}"#).unwrap();
    for deaf in [
        &["get", "a"][..],
        &["ls"],
        &["watch", "a"],
        &["txn", reading.to_str().unwrap()],
        &["status"],
        &["hash"],
        &["leader"],
        &["snapshot", "a.mng"],
        &["verify", "a.mng"],
        &["restore", "a.mng"],
        &["recover", "--from", "n1"],
        &["lease", "ls"],
        &["member", "ls"],
        &["mirror", "ls"],
        &["token", "ls"],
        &["token", "put", "guest", "--read", "open/"],
        &["token", "del", "guest"],
        &["member", "replace", "1", "2"],
        &["lease", "hold", "5s", "--", "true"],
        &["del", "--prefix", "a", "--in-parts", "--yes"],
    ] {
        let told = keyed(deaf).await.fails(2);
        assert!(told.contains("--idempotency-key"), "{deaf:?}: {told}");
    }
    // The old node would be gone before the new one is refused.
    let told = cluster.run(&["kv", "member", "replace", "1", "1"]).await.fails(2);
    assert!(told.contains("never used"), "{told}");
}
