//! How long `menagerie kv` waits for an answer.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::harness::{Cluster, Ran};

/// Longer than the client library waits at one node by itself.
const SLOW: Duration = Duration::from_millis(2500);

async fn hash() -> &'static str {
    tokio::time::sleep(SLOW).await;
    r#"{"revision": 7, "hash": "00ff"}"#
}

#[tokio::test]
async fn what_takes_the_store_long_ends_within_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = axum::serve(listener, Router::new().route("/v1/hash", get(hash)));
    let cluster = Cluster::new(1);
    let mut command = cluster.command(&[
        "kv",
        "hash",
        "--json",
        "--timeout",
        "20s",
        "--endpoints",
        &address,
    ]);
    command.env("MENAGERIE_TOKEN", "of-no-meaning-here");
    let output = tokio::select! {
        ended = serving => panic!("the node is gone: {ended:?}"),
        output = command.output() => output.unwrap(),
    };
    assert_eq!(Ran::of(output).json()["hash"], "00ff");
}
