//! Mirrors as launched: whatever dies under load, the copy has everything; a synchronous one has every write that was
//! acknowledged, also when all nodes and their disks are gone.

use std::time::{Duration, Instant};

use kvstore_client::{KvClient, PutOptions};
use serde_json::Value;
use service::config::{MirrorConfig, MirrorEngine, MirrorMode, OnLoss};

use crate::harness::{Cluster, SOON, free_ports, wait_until};
use crate::load::{Book, Fate, Load, Plan};

pub(crate) const NAME: &str = "mirror-one";

pub(crate) fn with_mirror(mode: MirrorMode, on_loss: OnLoss, engine: MirrorEngine) -> Cluster {
    Cluster::with(3, |config| {
        config.mirrors = vec![MirrorConfig {
            name: NAME.to_owned(),
            address: format!("127.0.0.1:{}", free_ports(1)[0]),
            engine,
            mode,
            on_loss,
            interval_ms: 50,
        }];
    })
}

pub(crate) async fn ask(cluster: &Cluster, path: &str) -> Result<Value, String> {
    let url = format!("http://{}{path}", cluster.config.mirrors[0].address);
    let request = cluster.http.get(url).timeout(Duration::from_mins(1));
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    status.is_success().then_some(()).ok_or_else(|| text.clone())?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// Until the store waits for the mirror, or until an asynchronous one is level.
async fn is_ok(cluster: &Cluster) {
    wait_until("the mirror to be ok", SOON, async || {
        let status = ask(cluster, "/status").await?;
        let level = status["mode"] == "sync" || status["lag_revisions"] == 0;
        (status["state"] == "ok" && level)
            .then_some(())
            .ok_or(status.to_string())
    })
    .await;
}

/// Caught up, the copy is what the store is.
async fn is_equal(cluster: &Cluster) {
    let client = cluster.client();
    let revision = wait_until("a revision", SOON, async || {
        client.revision().await.map_err(|error| error.to_string())
    })
    .await;
    wait_until("the copy to be the store", SOON, async || {
        let verdict = ask(cluster, "/verify").await?;
        let reached = verdict["revision"].as_u64() >= Some(revision);
        assert!(!reached || verdict["equal"] == true, "{verdict}");
        reached.then_some(()).ok_or(verdict.to_string())
    })
    .await;
}

async fn survives(mode: MirrorMode, engine: MirrorEngine) {
    let cluster = with_mirror(mode, OnLoss::Degrade, engine);
    cluster.up().await;
    is_ok(&cluster).await;
    let load = Load::start(&cluster, Plan::default());
    load.progress(Instant::now(), 100).await;
    cluster.kill(NAME).await;
    load.progress(Instant::now(), 50).await;
    cluster.start_node(NAME).await;
    is_ok(&cluster).await;
    let leader = cluster.leader().await;
    cluster.kill(&leader).await;
    load.progress(Instant::now(), 100).await;
    cluster.start_node(&leader).await;
    load.progress(Instant::now(), 50).await;
    for node in ["n1", "n2", "n3", NAME] {
        cluster.kill(node).await;
    }
    for node in ["n1", "n2", "n3", NAME] {
        cluster.start_node(node).await;
    }
    load.progress(Instant::now(), 100).await;
    is_ok(&cluster).await;
    let book = load.stop().await;
    is_equal(&cluster).await;
    assert!(book.acknowledged() > 300);
}

#[tokio::test]
async fn a_synchronous_copy_survives_the_death_of_anybody() {
    survives(MirrorMode::Sync, MirrorEngine::Sqlite).await;
}

#[tokio::test]
async fn an_asynchronous_copy_survives_the_death_of_anybody() {
    survives(MirrorMode::Async, MirrorEngine::Sqlite).await;
}

#[tokio::test]
async fn a_copy_in_json_survives_the_death_of_anybody() {
    survives(MirrorMode::Sync, MirrorEngine::Json).await;
}

/// Kills everything while it works, throws the nodes' disks away, and makes a new cluster of the mirror.
async fn lose_all_nodes(cluster: &Cluster, load: Load) -> (Book, Value) {
    for name in ["n1", "n2", "n3", NAME] {
        cluster.kill(name).await;
    }
    let book = load.stop().await;
    cluster.down().await;
    for node in ["n1", "n2", "n3"] {
        std::fs::remove_dir_all(cluster.data().join(node)).unwrap();
    }
    let arguments = ["--json", "mirror", "promote", "--name", NAME];
    let promoted = cluster.run(&arguments).await.json();
    cluster.up().await;
    (book, promoted)
}

/// A counter that was raised under an idempotency key, and a key that hangs on a lease of the shop.
struct Aside {
    first: Value,
    lease: u64,
}

impl Aside {
    async fn add(cluster: &Cluster, replayed: bool) -> Value {
        let body = serde_json::json!({"then": [{"add": {"key": "aside/n", "by": 1}}]});
        let request = cluster.request("POST", "n1", "/v1/txn").json(&body);
        let answer = request.header("idempotency-key", "once").send().await.unwrap();
        assert_eq!(answer.headers().contains_key("idempotent-replayed"), replayed);
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    fn shop(cluster: &Cluster) -> KvClient {
        KvClient::builder(cluster.config.client_addresses())
            .token(cluster.token("petstore"))
            .build()
            .unwrap()
    }

    async fn write(cluster: &Cluster) -> Self {
        let first = Self::add(cluster, false).await;
        let shop = Self::shop(cluster);
        let lease = shop.lease_grant(Duration::from_hours(1)).await.unwrap().id;
        let options = PutOptions {
            lease: Some(lease),
            ..PutOptions::default()
        };
        shop.put_with("shop/aside", "x", options).await.unwrap();
        Self { first, lease }
    }

    /// In the new cluster they are what they were: the answer is repeated, the lease has its time and its owner.
    async fn is_there(&self, cluster: &Cluster) {
        assert_eq!(Self::add(cluster, true).await, self.first);
        let counted = cluster.client().get("aside/n").await.unwrap().unwrap();
        assert_eq!(counted.bytes(), "1", "it was not done twice");
        let shop = Self::shop(cluster);
        let renewed = shop.lease_keepalive(self.lease).await.unwrap();
        assert_eq!(renewed.ttl_ms, 3_600_000);
        let lease = shop.lease_get(self.lease).await.unwrap().unwrap();
        assert_eq!(
            (lease.owner.as_str(), lease.keys),
            ("petstore", vec!["shop/aside".to_owned()])
        );
    }
}

#[tokio::test]
async fn with_all_nodes_and_their_disks_gone_every_acknowledged_write_is_in_the_mirror() {
    loses_nothing(MirrorEngine::Sqlite).await;
}

#[tokio::test]
async fn a_copy_in_json_loses_nothing_either() {
    loses_nothing(MirrorEngine::Json).await;
}

async fn loses_nothing(engine: MirrorEngine) {
    let cluster = with_mirror(MirrorMode::Sync, OnLoss::Block, engine);
    cluster.up().await;
    is_ok(&cluster).await;
    let aside = Aside::write(&cluster).await;
    let plan = Plan {
        deadline: Duration::from_secs(4),
        ..Plan::default()
    };
    let load = Load::start(&cluster, plan);
    load.progress(Instant::now(), 500).await;
    let (book, promoted) = lose_all_nodes(&cluster, load).await;
    assert!(book.acknowledged() >= 500);
    let client = cluster.client();
    let there = client.scan("load/w").await.unwrap();
    let revision = promoted["revision"].as_u64().unwrap();
    for (key, fate) in &book.puts {
        if let Fate::Done(written) = fate {
            let found = there.kvs.iter().find(|kv| kv.key == *key);
            let found = found.unwrap_or_else(|| panic!("{key} of {written} is lost, promoted to {revision}"));
            assert_eq!(found.mod_revision, *written);
        }
    }
    aside.is_there(&cluster).await;
    // It is a cluster like any other, and the mirror makes a copy of it.
    client.put("after", "x").await.unwrap();
    assert_ne!(promoted["cluster_id"], promoted["new_cluster_id"]);
    is_ok(&cluster).await;
    is_equal(&cluster).await;
}

#[tokio::test]
async fn what_an_asynchronous_mirror_loses_is_the_lag_it_shows() {
    let mut cluster = with_mirror(MirrorMode::Async, OnLoss::Degrade, MirrorEngine::Sqlite);
    // So seldom that nothing is written by itself meanwhile.
    cluster.config.mirrors[0].interval_ms = 3_600_000;
    cluster.write_config();
    cluster.up().await;
    let client = cluster.client();
    for n in 0..20 {
        client.put(&format!("early/{n}"), "x").await.unwrap();
    }
    let url = format!("http://{}/sync", cluster.config.mirrors[0].address);
    let synced: Value = cluster.http.post(url).send().await.unwrap().json().await.unwrap();
    let copied = synced["to_revision"].as_u64().unwrap();
    for n in 0..30 {
        client.put(&format!("late/{n}"), "x").await.unwrap();
    }
    let newest = client.revision().await.unwrap();
    let status = wait_until("the lag to be seen", SOON, async || {
        let status = ask(&cluster, "/status").await?;
        (status["cluster_revision"] == newest)
            .then_some(status.clone())
            .ok_or(status.to_string())
    })
    .await;
    assert_eq!(status["revision"], copied, "{status}");
    assert_eq!(status["lag_revisions"], newest - copied, "{status}");
    assert!(status["lag_ms"].as_u64().unwrap() > 0, "{status}");
    let load = Load::start(
        &cluster,
        Plan {
            writers: 0,
            adders: 0,
            ..Plan::default()
        },
    );
    let (_, promoted) = lose_all_nodes(&cluster, load).await;
    assert_eq!(promoted["revision"], copied);
    let client = cluster.client();
    assert_eq!(client.scan("early/").await.unwrap().kvs.len(), 20);
    assert_eq!(client.scan("late/").await.unwrap().kvs.len(), 0);
}

#[tokio::test]
async fn a_read_replica_follows_and_is_left_out_of_the_majority() {
    // A learner from the start: two processes, of which one decides.
    let mut cluster = Cluster::new(2);
    cluster.config.nodes[1].role = service::config::Role::Learner;
    cluster.write_config();
    cluster.up().await;
    let client = cluster.client_of(vec![cluster.address("n1").to_owned()]);
    let written = client.put("k", "v").await.unwrap();
    let replica = cluster.client_of(vec![cluster.address("n2").to_owned()]);
    let levels = [
        kvstore_client::wire::level::Consistency::AtLeast(written.revision),
        kvstore_client::wire::level::Consistency::Local,
    ];
    for consistency in levels {
        let options = kvstore_client::ReadOptions {
            consistency,
            revision: None,
        };
        let read = wait_until("the replica to have it", SOON, async || {
            replica
                .read("k", options)
                .await
                .map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(read.kv.unwrap().bytes(), "v");
    }
    let members = client.cluster().await.unwrap().members;
    let second = members.iter().find(|member| member.id == 2).unwrap();
    assert!(!second.voter);
    // Without the replica the primary goes on; without the primary the replica is still read.
    cluster.kill("n2").await;
    client.put("k", "w").await.unwrap();
    cluster.start_node("n2").await;
    wait_until("the replica to catch up", SOON, async || {
        let options = kvstore_client::ReadOptions {
            consistency: kvstore_client::wire::level::Consistency::Local,
            revision: None,
        };
        let read = replica
            .read("k", options)
            .await
            .map_err(|error| error.to_string())?;
        let value = read.kv.map(|kv| kv.bytes());
        (value.as_deref() == Some(b"w"))
            .then_some(())
            .ok_or(format!("{value:?}"))
    })
    .await;
    // It can be given a vote.
    wait_until("the replica to be promoted", SOON, async || {
        client.member_promote(2).await.map_err(|error| error.to_string())
    })
    .await;
}
