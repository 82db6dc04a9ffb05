//! Reading a store that is there only for the test, for a writer that the test plays.

use axum::routing::get;
use axum::{Json, Router};
use service::config::LimitsConfig;
use service::edge;
use service::serve::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::writer::Waiting;

const DEADLINE: Duration = Duration::from_secs(20);

/// Who follows a store that has always more, and what the writer is to do.
async fn endless(tasks: &Tasks) -> (Follower, mpsc::Receiver<Waiting>) {
    let page = || async {
        Json(serde_json::json!({
            "revision": 5, "kvs": [{"key": "a", "value": "b"}], "count": 1, "cursor": "a",
            "answers": [], "more": true,
        }))
    };
    let store = Router::new()
        .route("/v1/kv", get(page))
        .route("/v1/answers", get(page));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = Limits::from(&LimitsConfig::default());
    let serving = serve::serve(listener, edge::wrap(store, "n1"), limits, tasks.clone());
    tasks.spawn("store", serving);
    let client = KvClient::builder([address]).tasks(tasks.clone()).build().unwrap();
    let (orders, given) = Orders::new();
    let follower = Follower {
        client,
        orders,
        progress: Arc::new(Progress::new(0, String::new())),
        tasks: tasks.clone(),
    };
    (follower, given)
}

#[tokio::test]
async fn nothing_more_is_read_for_a_copy_that_was_given_up() {
    let tasks = Tasks::new();
    let (follower, mut orders) = endless(&tasks).await;
    let made = |keys| follower.progress.update(|applied| applied.rebuilding = keys);
    for answers in [false, true] {
        made(Some(0));
        let reading = async {
            if answers {
                follower.read_answers(5).await
            } else {
                follower.read_all(0).await.map(drop)
            }
        };
        let giving_up = async {
            while orders.recv().await.is_some() {
                made(None);
            }
        };
        let read = tokio::select! {
            read = timeout(DEADLINE, reading) => read,
            () = giving_up => panic!("the follower has ended"),
        };
        let error = read.expect("it is read without end").unwrap_err();
        assert!(error.to_string().contains("given up"), "{error:#}");
    }
    tasks.stop();
}
