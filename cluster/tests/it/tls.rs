//! A whole system that speaks TLS: it starts by itself, fails over, and lets in nobody whom its authority does not know.

use kvstore_client::wire::cluster::Role;
use serde_json::Value;
use service::config::{ClientCertificates, Config};
use service::tls::{self, Tls};

use crate::harness::{Cluster, SOON, free_ports, wait_until};

fn secured(config: &mut Config) {
    config.tls.enabled = true;
    let ports = free_ports(3);
    config.payment.addresses = vec![format!("127.0.0.1:{}", ports[0])];
    config.shop.addresses = vec![format!("127.0.0.1:{}", ports[1])];
    config.gateway.address = format!("127.0.0.1:{}", ports[2]);
}

fn authority(cluster: &Cluster) -> String {
    cluster.data().join("tls/ca.pem").to_str().unwrap().to_owned()
}

/// From here on this test calls as the cluster's own programs do.
fn speak_as_client(cluster: &Cluster) {
    let tls = Tls::load(
        &cluster.data().join("tls"),
        tls::CLIENT,
        ClientCertificates::Optional,
    )
    .unwrap();
    tls::install(tls).unwrap();
}

/// As any program outside would call: curl, with the authority or without.
async fn curl(arguments: &[&str]) -> (bool, String) {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--max-time", "5"])
        .args(arguments)
        .output()
        .await
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[tokio::test]
async fn everything_speaks_tls_and_survives_the_death_of_the_leader() {
    let cluster = Cluster::with(3, secured);
    cluster.up().await;
    cluster.run(&["kv", "put", "greeting", "hello"]).await.ok();
    let ca = authority(&cluster);
    let (node, gateway) = (&cluster.config.nodes[0].client, &cluster.config.gateway.address);
    assert_eq!(
        curl(&["--cacert", &ca, &format!("https://{node}/livez")])
            .await
            .1
            .trim(),
        "alive"
    );
    wait_until("the gateway has found the shop", SOON, async || {
        let (_, products) = curl(&["--cacert", &ca, &format!("https://{gateway}/products")]).await;
        if products.contains("\"price\"") {
            Ok(())
        } else {
            Err(products)
        }
    })
    .await;
    assert!(
        !curl(&[&format!("https://{node}/livez")]).await.0,
        "nobody vouches for it to a stranger"
    );
    assert!(
        !curl(&[&format!("http://{node}/livez")]).await.0,
        "nothing is said in the clear"
    );

    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.kill(&leader).await;
        cluster.run(&["kv", "put", "greeting", &leader]).await.ok();
        assert_eq!(cluster.run(&["kv", "get", "greeting"]).await.ok().trim(), leader);
        cluster.start_node(&leader).await;
        cluster.wait_for_state(&leader, "running").await;
    }
    cluster.run(&["check"]).await.ok();
}

#[tokio::test]
async fn certificates_are_kept_while_they_are_good_and_renewed_while_all_runs() {
    let cluster = Cluster::with(3, |config| config.tls.enabled = true);
    cluster.up().await;
    let actions = async |arguments: &[&str]| -> Vec<String> {
        let answer = cluster.run(arguments).await.json();
        let all = answer["certificates"].as_array().unwrap().clone();
        all.iter()
            .map(|one: &Value| one["action"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(
        actions(&["--json", "certs"])
            .await
            .iter()
            .all(|action| action == "kept")
    );
    assert!(
        actions(&["--json", "certs", "--renew"])
            .await
            .iter()
            .all(|action| action == "renewed")
    );
    cluster.run(&["kv", "put", "greeting", "hello"]).await.ok();
    // Who has only the new certificate of the authority trusts those that were signed before.
    std::fs::remove_file(authority(&cluster)).unwrap();
    let rebuilt = actions(&["--json", "certs"]).await;
    assert!(rebuilt.iter().all(|action| action == "kept"), "{rebuilt:?}");
    cluster.run(&["kv", "put", "greeting", "hello again"]).await.ok();
    cluster.run(&["certs", "--also", "n9=example.org"]).await.fails(2);
    let also = "n1=node.example.org";
    let more: [&[&str]; 2] = [
        &["--json", "certs", "--also", also],
        &["--json", "certs", "--drop-hosts"],
    ];
    for one_is_new in more {
        let actions = actions(one_is_new).await;
        let new = actions.iter().filter(|action| *action != "kept");
        assert_eq!(new.count(), 1, "{actions:?}");
    }
}

/// As in a folder to restore into, or where they were lost.
#[tokio::test]
async fn what_asks_no_node_needs_no_certificates() {
    let cluster = Cluster::with(1, |config| config.tls.enabled = true);
    cluster.up().await;
    let path = |name: &str| cluster.folder().join(name).to_str().unwrap().to_owned();
    let (file, restored, recovered) = (path("all.mng"), path("restored"), path("recovered"));
    let ok = async |arguments: &[&str]| cluster.run(arguments).await.ok();
    ok(&["kv", "snapshot", &file]).await;
    let (there, aside) = (cluster.data().join("tls"), cluster.data().join("tls-aside"));
    std::fs::rename(&there, &aside).unwrap();
    let told = cluster.run(&["kv", "get", "greeting"]).await.fails(1);
    assert!(told.contains("ca.pem"), "{told}");
    ok(&["kv", "verify", &file]).await;
    ok(&["--data", &restored, "kv", "restore", &file]).await;
    for act in ["pause", "resume", "kill"] {
        ok(&[act, "n1"]).await;
    }
    assert!(ok(&["status"]).await.contains("killed"));
    ok(&["logs", "n1"]).await;
    let old = cluster.data().join("n1").to_str().unwrap().to_owned();
    ok(&["--data", &recovered, "kv", "recover", "--yes", "--from", &old]).await;
    // The process that it starts needs them.
    ok(&["start", "n1"]).await;
    std::fs::rename(&aside, &there).unwrap();
    cluster.wait_for_state("n1", "running").await;
    std::fs::rename(&there, &aside).unwrap();
    ok(&["restart", "n1"]).await;
    ok(&["term", "n1"]).await;
    ok(&["down"]).await;
    // Nobody but the nodes can be asked now.
    let told = cluster.run(&["status"]).await.fails(1);
    assert!(told.contains("ca.pem"), "{told}");
}

/// The certificate decides which node one is, and not what one says.
#[tokio::test]
async fn a_node_with_the_certificate_of_another_is_not_spoken_with() {
    let cluster = Cluster::with(3, |config| config.tls.enabled = true);
    cluster.up().await;
    let follower = cluster.follower().await;
    let leader = cluster.leader().await;
    cluster.term(&follower).await;
    let file = |name: &str| cluster.data().join(format!("tls/{name}.pem"));
    let own = std::fs::read(file(&follower)).unwrap();
    std::fs::copy(file(&leader), file(&follower)).unwrap();
    // It never becomes ready, so nobody waits for that.
    cluster.start_node(&follower).await;
    speak_as_client(&cluster);
    let client = cluster.client();
    let id: u64 = follower.trim_start_matches('n').parse().unwrap();
    let role = async || {
        let members = client.cluster().await.unwrap().members;
        members.into_iter().find(|member| member.id == id).unwrap().role
    };
    client.put("written", "without it").await.unwrap();
    wait_until("the port of the impostor is open", SOON, async || {
        let address = &cluster.config.node(id).unwrap().peer;
        tokio::net::TcpStream::connect(address)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(role().await, Role::Unreachable);
    // With its own it is let in again, and that without a restart.
    std::fs::write(file(&follower), own).unwrap();
    wait_until("the node is let in again", SOON, async || {
        let role = role().await;
        if role == Role::Follower {
            Ok(())
        } else {
            Err(format!("{role:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_port_that_others_can_reach_needs_tls() {
    let cluster = Cluster::with(1, |config| {
        config.nodes[0].client_listen = Some("0.0.0.0:0".to_owned());
    });
    let refused = cluster.run(&["up", "--detach"]).await.fails(2);
    assert!(refused.contains("tls.enabled"), "{refused}");
}
