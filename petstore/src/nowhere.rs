//! A store for tests that has nothing, and goes as soon as that was read.

use axum::{Json, Router};
use kvstore_client::KvClient;
use serde_json::json;
use tokio::net::TcpListener;

use crate::shop::Catalogue;
use crate::store::Keys;

pub(crate) async fn empty_catalogue(keys: &Keys) -> (KvClient, Catalogue) {
    let nothing = async || Json(json!({"revision": 1, "kvs": [], "count": 0, "more": false}));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let client = KvClient::builder([address]).build().expect("it is an address");
    let serving = axum::serve(listener, Router::new().fallback(nothing));
    let catalogue = tokio::select! {
        ended = serving => panic!("the store is gone: {ended:?}"),
        catalogue = Catalogue::open(&client, keys) => catalogue.expect("it has nothing"),
    };
    (client, catalogue)
}
