//! What `menagerie kv` says of a write that may or may not have happened.
//! Invariant: a key that it names is one that the store remembers for as long as it says.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tokio::net::TcpListener;

use crate::harness::{Cluster, Ran};

/// The key of each write, and for how long its answer was to be kept.
type Writes = Arc<Mutex<Vec<[String; 2]>>>;

/// A node that holds one key, and that cannot say what has become of any write.
async fn answer(
    State(writes): State<Writes>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, &'static str) {
    if method == Method::GET {
        let told = if uri.path() == "/v1/revision" {
            r#"{"revision": 7}"#
        } else {
            r#"{"revision": 7, "kvs": [{"key": "p/a"}], "count": 1, "more": false}"#
        };
        return (StatusCode::OK, told);
    }
    let header = |name: &str| {
        let value = headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let write = [header("idempotency-key"), header("idempotency-ttl")];
    writes.lock().unwrap().push(write);
    (StatusCode::INTERNAL_SERVER_ERROR, r#"{"code": "internal"}"#)
}

#[tokio::test]
async fn a_write_whose_fate_is_open_can_be_repeated_for_an_hour() {
    let cluster = Cluster::new(1);
    let add = r#"{"then": [{"add": {"key": "n", "by": 5}}]}"#;
    std::fs::write(cluster.folder().join("add.json"), add).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let writes = Writes::default();
    let node = Router::new().fallback(answer).with_state(writes.clone());
    let serving = axum::serve(listener, node);
    let run = async |arguments: &[&str]| {
        let reach = ["kv", "--timeout", "20s", "--endpoints", address.as_str()];
        let mut command = cluster.command(&[&reach[..], arguments].concat());
        command.env("MENAGERIE_TOKEN", "of-no-meaning-here");
        Ran::of(command.output().await.unwrap()).fails(1)
    };
    let asking = async {
        for one in [
            &["put", "a", "1"][..],
            &["create", "1"],
            &["del", "a"],
            &["del", "--prefix", "a", "--yes"],
            &["txn", "add.json"],
            &["lease", "grant", "5s"],
            &["lease", "revoke", "7"],
        ] {
            let told = run(one).await;
            let [key, ttl_s] = writes.lock().unwrap().pop().unwrap();
            let advice = format!("--idempotency-key {key} within an hour");
            assert!(!key.is_empty() && told.contains(&advice), "{one:?}: {told}");
            assert_eq!(ttl_s, "", "{one:?}: the store keeps it for an hour by itself");
        }
        // What is made of many requests takes no key, so none is named.
        for many in [
            &["del", "--prefix", "p/", "--in-parts", "--yes"][..],
            &["lease", "hold", "5s", "--", "true"],
        ] {
            let told = run(many).await;
            assert!(told.contains("look before you repeat it"), "{many:?}: {told}");
            assert!(!told.contains("--idempotency-key"), "{many:?}: {told}");
        }
    };
    tokio::select! {
        ended = serving => panic!("the node is gone: {ended:?}"),
        () = asking => {}
    }
}
