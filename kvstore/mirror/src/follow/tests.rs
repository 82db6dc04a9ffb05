//! Reading a store that is there only for the test, for a writer that the test plays.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use service::config::LimitsConfig;
use service::edge;
use service::problem::{self, Problem};
use service::serve::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::writer::Waiting;

const DEADLINE: Duration = Duration::from_secs(20);

/// Who follows this store, and what the writer is to do.
async fn following(store: Router, tasks: &Tasks) -> (Follower, mpsc::Receiver<Waiting>) {
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

/// A store that has always more.
fn endless() -> Router {
    let page = || async {
        Json(json!({
            "revision": 5, "kvs": [{"key": "a", "value": "b"}], "count": 1, "cursor": "a",
            "answers": [], "more": true,
        }))
    };
    Router::new()
        .route("/v1/kv", get(page))
        .route("/v1/answers", get(page))
}

/// An empty store that shows its keys only where nothing is against it.
fn refusing(refuses: &Arc<AtomicBool>) -> Router {
    let refuses = Arc::clone(refuses);
    let page = move || {
        let refuses = refuses.load(Ordering::Relaxed);
        async move {
            if refuses {
                return Err(Problem::new(problem::MALFORMED_PARAMETER, "No such pages."));
            }
            Ok(Json(json!({"revision": 5, "kvs": [], "count": 0, "more": false})))
        }
    };
    let cluster = || async { Json(json!({"cluster_id": "one", "leader": 1, "term": 1, "members": []})) };
    let answers = || async { Json(json!({"answers": [], "more": false})) };
    Router::new()
        .route("/v1/cluster", get(cluster))
        .route("/v1/kv", get(page))
        .route("/v1/answers", get(answers))
        .route("/v1/watch", get(async || ""))
}

/// Does what the writer does, and keeps nothing of it but the revision.
async fn write(mut orders: mpsc::Receiver<Waiting>, progress: Arc<Progress>) {
    let mut head = Head::default();
    let rebuilding = |keys| progress.update(|applied| applied.rebuilding = keys);
    while let Some(Waiting { order, .. }) = orders.recv().await {
        match order {
            Order::Head(answer) => {
                answer.send(head.clone()).ok();
            }
            Order::BeginRebuild(done) => {
                rebuilding(Some(0));
                done.send(Ok(())).ok();
            }
            Order::EndRebuild { revision, done, .. } => {
                head.revision = revision;
                rebuilding(None);
                done.send(Ok(())).ok();
            }
            Order::AbortRebuild => rebuilding(None),
            _ => {}
        }
    }
}

#[tokio::test]
async fn nothing_more_is_read_for_a_copy_that_was_given_up() {
    let tasks = Tasks::new();
    let (follower, mut orders) = following(endless(), &tasks).await;
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

#[tokio::test]
async fn a_first_copy_that_the_store_refuses_is_told_of_until_it_is_made() {
    let tasks = Tasks::new();
    let refuses = Arc::new(AtomicBool::new(true));
    let (follower, orders) = following(refusing(&refuses), &tasks).await;
    let progress = Arc::clone(&follower.progress);
    tasks.spawn("writer", write(orders, Arc::clone(&progress)));
    tasks.spawn("follower", follower.run());
    let mut told = progress.subscribe();
    let refused = told.wait_for(|applied| applied.refused.is_some());
    let refused = timeout(DEADLINE, refused).await.unwrap().unwrap().refused.clone();
    assert_eq!(
        refused.as_deref(),
        Some("the store refused: No such pages. (400 malformed-parameter)")
    );
    refuses.store(false, Ordering::Relaxed);
    let followed = told.wait_for(|applied| applied.refused.is_none());
    timeout(DEADLINE, followed).await.unwrap().unwrap();
    tasks.stop();
}
