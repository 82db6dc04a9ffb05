//! The document of the contract says what the node does, and every route it names is guarded.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::Value;

use crate::harness::{Client, Cluster};

const METHODS: [&str; 4] = ["get", "put", "post", "delete"];

/// An address under which the route can be reached.
fn concrete(path: &str) -> String {
    path.replace("{key}", "k")
        .replace("{id}", "1")
        .replace("{name}", "name")
        .replace("{code}", "compacted")
}

async fn document(client: &Client) -> BTreeMap<String, Value> {
    let document = client.with_token("none").get("/openapi.json").await.expect(200);
    assert_eq!(document.json()["openapi"], "3.1.0");
    let paths = document.json()["paths"].as_object().unwrap().clone();
    paths.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_documented_with_its_methods_and_guarded() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    let stranger = client.with_token("0000000000000000000000000000000000000000000000000000000000000000");
    for (path, item) in document(&client).await {
        let described: BTreeSet<&str> = METHODS
            .into_iter()
            .filter(|method| item.get(*method).is_some())
            .collect();
        // No route takes this method, and says which it does take.
        let refused = client
            .send(client.request(Method::TRACE, &concrete(&path)))
            .await
            .refused(405, "method-not-allowed");
        let allowed = refused.header("allow").to_lowercase();
        let served: BTreeSet<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        assert_eq!(described, served, "{path}");
        for name in described {
            let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            let answer = stranger.send(stranger.request(method, &concrete(&path))).await;
            let open = item[name].get("security").is_some();
            assert_eq!(answer.status == 401, !open, "{name} {path}: {}", answer.text());
            let codes = item[name]["responses"].as_object().unwrap();
            assert!(
                codes.contains_key(&answer.status.to_string()),
                "{name} {path} answers {}",
                answer.status
            );
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_takes_a_level_and_refuses_what_is_none() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0);
    for (path, item) in document(&client).await {
        // A backup is taken as it is made.
        let reads = path.starts_with("/v1/") && path != "/v1/snapshot" && item.get("get").is_some();
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let is_level = |parameter: &Value| {
            let shared = parameter["$ref"].as_str().unwrap_or_default();
            shared.starts_with("#/components/parameters/Level")
        };
        assert_eq!(parameters.iter().any(is_level), reads, "{path}");
        if reads {
            client
                .get(&format!("{}?consistency=sometimes", concrete(&path)))
                .await
                .refused(400, "malformed-parameter");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_runs_nothing_but_its_own_script() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client(0).with_token("none");
    let page = client.get("/docs").await.expect(200);
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text();
    assert!(text.contains("fetch('/openapi.json')"));
    assert!(
        !text.contains("http://") && !text.contains("https://") && !text.contains(" src="),
        "nothing is fetched from elsewhere"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_tells_of_itself_waits_for_the_level_that_was_asked_for() {
    let cluster = Cluster::start(3).await;
    let written = cluster.client(0).put("k", "v").await.number("x-kv-revision");
    let (at_least, ahead) = (
        format!("at_least:{written}"),
        format!("at_least:{}", written + 1000),
    );
    let own = ["local", "local", "bounded:60000", &at_least];
    let linearizable = ["linearizable", "linearizable", "linearizable", &at_least];
    for (path, given) in [
        ("/v1/status", own),
        ("/v1/cluster", own),
        ("/v1/tokens", linearizable),
    ] {
        for node in 0..3 {
            let client = cluster.client(node);
            let asked = ["linearizable", "local", "bounded:60000", &at_least];
            for (asked, given) in asked.into_iter().zip(given) {
                let told = client.get(&format!("{path}?consistency={asked}")).await;
                let told = told.expect(200);
                assert_eq!(told.header("x-kv-consistency"), given, "{path} {asked}");
                let revision = told.number("x-kv-revision");
                assert!(given != at_least || revision >= written, "{path} {revision}");
            }
        }
    }
    let client = cluster.client(0);
    let late = async |path: &str| client.get(&format!("{path}?consistency={ahead}")).await;
    let (status, members, tokens) = tokio::join!(late("/v1/status"), late("/v1/cluster"), late("/v1/tokens"));
    for late in [status, members, tokens] {
        late.refused(503, "behind");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_tells_how_it_is() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client(1);
    client.put("k", "v").await;
    let status = client.get("/v1/status").await.expect(200);
    for told in [&status, &client.get("/v1/cluster").await.expect(200)] {
        // What one node knows by itself.
        assert_eq!(told.header("x-kv-consistency"), "local");
        told.number("x-kv-revision");
    }
    let status = status.json();
    assert_eq!((&status["id"], &status["name"]), (&2.into(), &"n2".into()));
    for number in [
        "term",
        "last_log",
        "committed",
        "applied",
        "revision",
        "compacted_revision",
        "db_bytes",
        "uptime_ms",
        "keys",
    ] {
        assert!(status[number].is_u64(), "{number} in {status}");
    }
    assert_eq!(status["state_hash"].as_str().unwrap().len(), 32);
    let seen = client.get("/v1/cluster").await.expect(200).json();
    assert_eq!(seen["members"].as_array().unwrap().len(), 3);
    assert_eq!(seen["leader"], status["leader"]);
    let leads = seen["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["role"] == "leader");
    assert_eq!(
        leads.map(|member| &member["id"]).collect::<Vec<_>>(),
        [&seen["leader"]]
    );
    assert!(
        seen["members"]
            .as_array()
            .unwrap()
            .iter()
            .all(|member| member["voter"] == true && member["lag"].is_u64()),
        "{seen}"
    );
    assert_ne!(seen["cluster_id"], "");
    let metrics = client.get("/metrics").await.expect(200);
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let counted = "kv_requests_total{route=\"/v1/kv/{*key}\",status=\"2xx\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    assert_eq!(client.get("/livez").await.expect(200).text(), "alive\n");
    cluster.stop().await;
}
