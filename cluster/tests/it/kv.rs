//! `menagerie kv` on keys and transactions, against one real node.
//! Invariant: values go in and out byte for byte.

use insta::assert_snapshot;
use serde_json::{Value, json};
use service::config::REQUEST_BYTES_MAX;

use crate::harness::Cluster;

async fn put(cluster: &Cluster, key: &str, value: &str) -> u64 {
    cluster.run(&["kv", "put", key, value, "--json"]).await.json()["revision"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn values_go_in_and_out_byte_for_byte() {
    let cluster = Cluster::start(1).await;
    let told = cluster.run(&["kv", "put", "greeting", "hello"]).await.ok();
    assert!(told.starts_with("created at revision "), "{told}");
    assert_eq!(cluster.run(&["kv", "get", "greeting"]).await.ok(), "hello");
    let told = cluster.run(&["kv", "put", "greeting", "-5"]).await.ok();
    assert!(
        told.starts_with("changed at revision ") && told.ends_with("(version 2)\n"),
        "{told}"
    );
    assert_eq!(cluster.run(&["kv", "get", "greeting"]).await.ok(), "-5");

    let bytes: Vec<u8> = (0..=255).collect();
    cluster
        .run_with_input(&["kv", "put", "binary"], &bytes)
        .await
        .ok();
    let output = cluster.command(&["kv", "get", "binary"]).output().await.unwrap();
    assert_eq!(output.stdout, bytes);
    let document = cluster.run(&["kv", "get", "binary", "--json"]).await.json();
    assert!(
        document["value_base64"].is_string() && document.get("value").is_none(),
        "{document}"
    );

    cluster
        .run_with_input(&["kv", "put", "empty", "-"], b"")
        .await
        .ok();
    assert_eq!(cluster.run(&["kv", "get", "empty"]).await.ok(), "");

    let odd = "a b/?#%&=/ä/../. 🦊";
    cluster.run(&["kv", "put", odd, "odd"]).await.ok();
    assert_eq!(cluster.run(&["kv", "get", odd]).await.ok(), "odd");
}

#[tokio::test]
async fn get_tells_what_is_known_and_what_is_not_there() {
    let cluster = Cluster::start(1).await;
    let revision = put(&cluster, "a", "1").await;
    let document = cluster.run(&["kv", "get", "a", "--json"]).await.json();
    let expected = json!({
        "key": "a", "value": "1", "version": 1, "lease": 0, "create_revision": revision,
        "mod_revision": revision, "revision": revision, "consistency": "linearizable",
    });
    assert_eq!(document, expected);
    let ran = cluster.run(&["kv", "get", "a", "-v"]).await;
    assert_eq!(ran.stdout, "1");
    assert!(
        ran.stderr
            .contains(&format!("revision {revision}, created at {revision}, version 1")),
        "{}",
        ran.stderr
    );

    let told = cluster.run(&["kv", "get", "b"]).await.fails(1);
    assert_snapshot!(told, @r#"menagerie: there is no key "b""#);
    let told: Value =
        serde_json::from_str(&cluster.run(&["kv", "get", "b", "--json"]).await.fails(1)).unwrap();
    assert_eq!(told["code"], "key-not-found");
}

#[tokio::test]
async fn reads_of_the_past_and_at_other_levels() {
    let cluster = Cluster::start(1).await;
    let first = put(&cluster, "a", "old").await;
    put(&cluster, "a", "new").await;
    let first = first.to_string();
    assert_eq!(
        cluster.run(&["kv", "get", "a", "--revision", &first]).await.ok(),
        "old"
    );
    for level in [
        "local",
        "bounded:5000",
        &format!("at_least:{first}"),
        "linearizable",
    ] {
        assert_eq!(
            cluster
                .run(&["kv", "get", "a", "--consistency", level])
                .await
                .ok(),
            "new",
            "{level}"
        );
    }
    let told = cluster
        .run(&["kv", "get", "a", "--revision", "999999"])
        .await
        .fails(1);
    assert!(told.contains("future-revision"), "{told}");

    cluster.run(&["kv", "del", "a"]).await.ok();
    let past = cluster
        .run(&["kv", "ls", "--revision", &first, "--values"])
        .await
        .ok();
    assert!(past.contains("old"), "{past}");
    cluster
        .run(&["kv", "compact", &(first.parse::<u64>().unwrap() + 2).to_string()])
        .await
        .ok();
    let told = cluster
        .run(&["kv", "get", "a", "--revision", &first])
        .await
        .fails(1);
    assert!(told.contains("kv status"), "{told}");
    // What is gone is not said to be there again.
    let compacted = cluster.run(&["kv", "compact", &first, "--json"]).await.json();
    assert_eq!(compacted["revision"], first.parse::<u64>().unwrap() + 2);
}

#[tokio::test]
async fn conditions_on_writes_hold() {
    let cluster = Cluster::start(1).await;
    let revision = cluster
        .run(&["kv", "put", "a", "1", "--if-absent", "--json"])
        .await
        .json()["revision"]
        .clone();
    let told = cluster
        .run(&["kv", "put", "a", "2", "--if-absent"])
        .await
        .fails(1);
    assert_eq!(
        told,
        format!("menagerie: not done: the key is now at revision {revision}\n")
    );
    let next = cluster
        .run(&[
            "kv",
            "put",
            "a",
            "2",
            "--if-match",
            &revision.to_string(),
            "--json",
        ])
        .await
        .json();
    assert_eq!(next["version"], 2);
    let told = cluster
        .run(&["kv", "del", "a", "--if-match", &revision.to_string(), "--json"])
        .await
        .fails(1);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["code"], "precondition-failed");
    assert_eq!(cluster.run(&["kv", "get", "a"]).await.ok(), "2");
}

#[tokio::test]
async fn a_repeated_write_with_one_key_is_done_once() {
    let cluster = Cluster::start(1).await;
    let twice = ["kv", "txn", "-", "--json", "--idempotency-key", "order-7"];
    let add = br#"{"then": [{"add": {"key": "n", "by": 5}}]}"#;
    let first = cluster.run_with_input(&twice, add).await.json();
    let second = cluster.run_with_input(&twice, add).await.json();
    assert_eq!(first, second);
    assert_eq!(cluster.run(&["kv", "get", "n"]).await.ok(), "5");
    let other = br#"{"then": [{"add": {"key": "n", "by": 6}}]}"#;
    let told = cluster.run_with_input(&twice, other).await.fails(1);
    assert!(told.contains("idempotency-key-reused"), "{told}");
}

#[tokio::test]
async fn ls_shows_ranges() {
    let cluster = Cluster::start(1).await;
    for (key, value) in [("p/a", "1"), ("p/b", "2"), ("p/c", "3"), ("q", "4")] {
        put(&cluster, key, value).await;
    }
    let keys = async |arguments: &[&str]| {
        let arguments = [&["kv", "ls", "--keys-only"], arguments].concat();
        cluster
            .run(&arguments)
            .await
            .ok()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&["p/"]).await, ["p/a", "p/b", "p/c"]);
    assert_eq!(keys(&["p/", "--desc"]).await, ["p/c", "p/b", "p/a"]);
    assert_eq!(keys(&["--from", "p/b", "--to", "q"]).await, ["p/b", "p/c"]);
    assert_eq!(keys(&[]).await, ["p/a", "p/b", "p/c", "q"]);
    assert_eq!(cluster.run(&["kv", "ls", "p/", "--count"]).await.ok(), "3\n");

    let limited = cluster.run(&["kv", "ls", "--limit", "2"]).await;
    assert!(limited.stderr.contains("there are more"), "{}", limited.stderr);
    assert_eq!(limited.ok().lines().count(), 3);
    let table = cluster.run(&["kv", "ls", "p/", "--values"]).await.ok();
    assert!(table.starts_with("KEY"), "{table}");
    assert!(
        table.lines().nth(1).is_some_and(|row| row.starts_with("p/a  1 ")),
        "{table}"
    );

    let document = cluster.run(&["kv", "ls", "p/", "--json"]).await.json();
    assert_eq!(document["kvs"][2]["value"], "3");
    assert_eq!(document["more"], false);
}

#[tokio::test]
async fn ls_walks_all_pages_and_del_deletes_them_in_parts() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    // More than one page holds, in few requests.
    for batch in 0..12 {
        let mut txn = kvstore_client::Txn::new();
        for n in 0..100 {
            let op = kvstore_client::wire::txn::Op::put(&format!("many/{:04}", batch * 100 + n), "x");
            txn = txn.then(op);
        }
        client.txn(txn).await.unwrap();
    }
    let all = cluster
        .run(&["kv", "ls", "many/", "--keys-only", "--limit", "5000"])
        .await
        .ok();
    let expected: Vec<String> = (0..1200).map(|n| format!("many/{n:04}")).collect();
    assert_eq!(all.lines().collect::<Vec<_>>(), expected);
    let some = cluster
        .run(&["kv", "ls", "many/", "--keys-only", "--limit", "1100"])
        .await
        .ok();
    assert_eq!(some.lines().count(), 1100);
    let deleted = cluster
        .run(&["kv", "del", "--prefix", "many/", "--in-parts", "--yes", "--json"])
        .await
        .json();
    assert_eq!(deleted["deleted"], 1200);
    assert_eq!(cluster.run(&["kv", "ls", "--count"]).await.ok(), "0\n");
}

#[tokio::test]
async fn del_deletes_one_or_many() {
    let cluster = Cluster::start(1).await;
    for key in ["p/a", "p/b", "q"] {
        put(&cluster, key, "x").await;
    }
    assert_eq!(cluster.run(&["kv", "del", "q"]).await.ok(), "1 key deleted\n");
    assert_eq!(cluster.run(&["kv", "del", "q"]).await.ok(), "0 keys deleted\n");
    let deleted = cluster
        .run(&["kv", "del", "--prefix", "p/", "--yes", "--json"])
        .await
        .json();
    assert_eq!(deleted["deleted"], 2);
    assert_eq!(cluster.run(&["kv", "ls", "--count"]).await.ok(), "0\n");
}

#[tokio::test]
async fn create_prints_the_key_that_the_store_made() {
    let cluster = Cluster::start(1).await;
    let key = cluster
        .run(&["kv", "create", "--prefix", "note/", "text"])
        .await
        .ok();
    let key = key.trim_end();
    assert_eq!(key.len(), "note/".len() + 16, "{key}");
    assert_eq!(cluster.run(&["kv", "get", key]).await.ok(), "text");
}

#[tokio::test]
async fn transactions_from_stdin_and_files() {
    let cluster = Cluster::start(1).await;
    put(&cluster, "stock", "1").await;
    let buy = br#"{"then": [{"add": {"key": "stock", "by": -1, "min": 0}}, {"get": {"key": "stock"}}],
                   "failed": [{"put": {"key": "refused", "value": "yes"}}]}"#;
    let told = cluster.run_with_input(&["kv", "txn", "-"], buy).await.ok();
    let revision = cluster.client().revision().await.unwrap();
    assert_eq!(
        told,
        format!("branch `then` at revision {revision}\n0: sum 0\n1: 1 found\n   stock = 0\n")
    );

    let file = cluster.folder().join("buy.json");
    std::fs::write(&file, buy).unwrap();
    let answer = cluster
        .run(&["kv", "txn", file.to_str().unwrap(), "--json"])
        .await
        .json();
    assert_eq!(answer["branch"], "failed");
    assert_eq!(answer["failed_op"], 0);
    assert_eq!(cluster.run(&["kv", "get", "refused"]).await.ok(), "yes");
    let told = cluster.run_with_input(&["kv", "txn", "-"], buy).await.ok();
    assert!(told.contains("operation 0 of `then` was refused"), "{told}");
    let otherwise = br#"{"if": [{"key": "absent", "target": "version", "op": ">", "operand": 0}],
                         "then": [{"put": {"key": "absent", "value": "no"}}],
                         "else": [{"get": {"key": "stock"}}, {"add": {"key": "stock", "by": -1, "min": 0}}]}"#;
    let told = cluster.run_with_input(&["kv", "txn", "-"], otherwise).await.ok();
    assert!(told.contains("operation 1 of `else` was refused"), "{told}");

    let told = cluster
        .run_with_input(&["kv", "txn", "-"], b"{\"then\": [{\"jump\": {}}]}")
        .await
        .fails(2);
    assert!(told.contains("is no transaction"), "{told}");
    // The beginning of too much is not taken for all of it.
    let more = vec![b' '; REQUEST_BYTES_MAX + 1];
    for reading in [&["kv", "txn", "-"][..], &["kv", "put", "large", "-"]] {
        let told = cluster.run_with_input(reading, &more).await.fails(1);
        assert!(
            told.contains("larger than any request may be (16777216"),
            "{told}"
        );
    }
    let told = cluster.run(&["kv", "txn", "absent.json"]).await.fails(1);
    assert!(told.contains("absent.json"), "{told}");
}
