//! A watch delivers whole revisions, each once, whatever its connections do.

use crate::canned::{Canned, Reply, cut_stream, ok, problem};
use bytes::Bytes;
use futures_util::StreamExt;
use kvstore_client::{Error, EventKind, KvClient, WatchRequest};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(1);

fn put(key: &str, revision: u64, id: bool) -> String {
    let data =
        json!({"key": key, "value": "v", "create_revision": 1, "mod_revision": revision, "version": 1});
    let id = if id {
        format!("id: {revision}\n")
    } else {
        String::new()
    };
    format!("event: put\ndata: {data}\n{id}\n")
}

fn progress(revision: u64) -> String {
    format!("event: progress\ndata: {{\"revision\":{revision}}}\n\n")
}

/// A stream that says this, and stays open for as long as `open` is.
fn staying(text: &str, open: &Mutex<Vec<mpsc::Sender<Bytes>>>) -> Reply {
    let (tx, rx) = mpsc::channel(1);
    tx.try_send(Bytes::copy_from_slice(text.as_bytes())).unwrap();
    open.lock().unwrap().push(tx);
    Reply::Stream(rx)
}

/// A server whose connections say these texts in turn; the last one stays open.
async fn saying(texts: Vec<String>) -> Canned {
    let turn = Mutex::new(0);
    let open = Mutex::new(Vec::new());
    Canned::start(move |seen| {
        if seen.target == "/v1/revision" {
            return ok(json!({"revision": 4}));
        }
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        if *turn < texts.len() {
            return cut_stream(&texts[*turn - 1]);
        }
        staying(&texts[texts.len() - 1], &open)
    })
    .await
}

async fn keys(client: &KvClient, request: WatchRequest, count: usize) -> Vec<(String, u64)> {
    let mut watch = client.watch(request).await.unwrap();
    let mut keys = Vec::new();
    while keys.len() < count {
        let event = watch.next().await.unwrap();
        keys.push((event.change.key, event.revision));
    }
    keys
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(key, revision)| ((*key).to_owned(), *revision))
        .collect()
}

#[tokio::test]
async fn a_cut_within_a_revision_neither_loses_nor_repeats() {
    let server = saying(vec![
        [put("a", 5, false), put("b", 5, true), put("c", 6, false)].concat(),
        // The new node sends the last whole revision again: it must not come through twice.
        [put("b", 5, true), put("c", 6, false), put("d", 6, true)].concat(),
        put("e", 7, true),
    ])
    .await;
    let request = WatchRequest::prefix("").from(5);
    let seen = keys(&server.client(), request, 5).await;
    assert_eq!(seen, pairs(&[("a", 5), ("b", 5), ("c", 6), ("d", 6), ("e", 7)]));
    assert_eq!(
        server.lines(),
        [
            "GET /v1/watch?prefix=&from=5",
            "GET /v1/watch?prefix=&from=6",
            "GET /v1/watch?prefix=&from=7"
        ]
    );
}

#[tokio::test]
async fn a_revision_that_comes_again_is_counted_and_not_delivered() {
    let server = saying(vec![
        put("a", 5, true),
        // Progress says no more than what is known; an event that was delivered is what no node may send again.
        [
            progress(5),
            put("b", 6, true),
            put("b", 6, true),
            put("c", 7, true),
        ]
        .concat(),
    ])
    .await;
    let request = WatchRequest::prefix("").from(5);
    let mut watch = server.client().watch(request).await.unwrap();
    for (revision, repeated) in [(5, 0), (6, 0), (7, 1)] {
        assert_eq!(watch.next().await.unwrap().revision, revision);
        assert_eq!(watch.repeated(), repeated);
    }
}

#[tokio::test]
async fn without_a_beginning_it_begins_after_the_present_revision() {
    let server = saying(vec![String::from(": hello\n\n"), put("a", 5, true)]).await;
    let seen = keys(&server.client(), WatchRequest::key("a b").prev(), 1).await;
    assert_eq!(seen, pairs(&[("a", 5)]));
    assert_eq!(
        server.lines(),
        [
            "GET /v1/revision",
            "GET /v1/watch?key=a%20b&from=5&prev=1",
            "GET /v1/watch?key=a%20b&from=5&prev=1"
        ]
    );
}

#[tokio::test]
async fn progress_moves_the_place_to_resume_from() {
    let server = saying(vec![progress(40), [put("a", 41, true), progress(3)].concat()]).await;
    let mut watch = server
        .client()
        .watch(WatchRequest::prefix("p").from(5))
        .await
        .unwrap();
    let batch = watch.next_batch().await.unwrap();
    assert_eq!(
        (batch.revision, batch.events.len(), watch.position()),
        (40, 0, 40)
    );
    let batch = watch.next_batch().await.unwrap();
    assert_eq!(
        (batch.revision, batch.events.len(), watch.position()),
        (41, 1, 41)
    );
    assert_eq!(batch.events[0].kind, EventKind::Put);
    assert_eq!(server.lines()[1], "GET /v1/watch?prefix=p&from=41");
}

#[tokio::test]
async fn a_lagging_reader_resumes_where_it_was() {
    let lagging = "event: lagging\ndata: {\"revision\": 99}\n\n";
    let server = saying(vec![
        [put("a", 5, true), put("x", 6, false), lagging.to_owned()].concat(),
        put("b", 6, true),
    ])
    .await;
    let seen = keys(&server.client(), WatchRequest::prefix("").from(5), 2).await;
    assert_eq!(seen, pairs(&[("a", 5), ("b", 6)]));
    assert_eq!(server.lines()[1], "GET /v1/watch?prefix=&from=6");
}

#[tokio::test]
async fn compaction_is_an_error_at_once_and_later() {
    let at_connect = Canned::start(|_| problem(410, "compacted")).await;
    let error = at_connect
        .client()
        .watch(WatchRequest::prefix("").from(1))
        .await
        .unwrap_err();
    assert!(error.is_compacted(), "{error:?}");

    let later = saying(vec![
        "event: compacted\ndata: {\"compacted_revision\": 8}\n\n".to_owned(),
    ])
    .await;
    let watch = later
        .client()
        .watch(WatchRequest::prefix("").from(1))
        .await
        .unwrap();
    let items: Vec<_> = watch.into_stream().collect().await;
    assert_eq!(items.len(), 1);
    match &items[0] {
        Err(error @ Error::Compacted { source }) => {
            assert_eq!(source.number("compacted_revision"), Some(8));
            assert_eq!(error.code(), "compacted");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_trouble_is_tried_again() {
    let refused = Canned::start(|_| problem(403, "forbidden")).await;
    let error = refused
        .client()
        .watch(WatchRequest::prefix("").from(1))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    assert_eq!(refused.seen().len(), 1);

    let turn = Mutex::new(0);
    let troubled = Canned::start(move |_| {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        match *turn {
            1 => problem(503, "too-many-watchers"),
            2 => Reply::Cut,
            _ => cut_stream(&put("a", 5, true)),
        }
    })
    .await;
    let seen = keys(&troubled.client(), WatchRequest::prefix("").from(5), 1).await;
    assert_eq!(seen, pairs(&[("a", 5)]));
}

#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let server = saying(vec![put("a", 5, true)]).await;
    let mut request = WatchRequest::prefix("").from(5);
    request.silence_max = Duration::from_millis(50);
    let mut watch = server.client().watch(request).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 5);
    // The connection stays open and silent, so further ones are made; none brings anything new.
    let nothing = timeout(Duration::from_millis(300), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert!(server.seen().len() > 2);
}

#[tokio::test]
async fn a_silent_connection_is_given_up_also_by_who_asks_for_a_moment_at_a_time() {
    let server = saying(vec![put("a", 5, true)]).await;
    let mut request = WatchRequest::prefix("").from(5);
    request.silence_max = Duration::from_millis(50);
    let mut watch = server.client().watch(request).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, 5);
    let asking = async {
        while server.seen().len() < 2 {
            let nothing = timeout(Duration::from_millis(20), watch.next()).await;
            assert!(nothing.is_err(), "{nothing:?}");
        }
    };
    timeout(Duration::from_secs(5), asking)
        .await
        .expect("the silent connection is never given up");
}

#[tokio::test]
async fn a_silent_node_is_left_for_another() {
    let revision = Arc::new(AtomicU64::new(5));
    let server = async || {
        let (revision, open) = (revision.clone(), Mutex::new(Vec::new()));
        Canned::start(move |_| {
            let revision = revision.fetch_add(1, Ordering::Relaxed);
            staying(&put("a", revision, true), &open)
        })
        .await
    };
    let servers = [server().await, server().await];
    let client = KvClient::builder(servers.each_ref().map(|server| &server.address));
    let mut request = WatchRequest::prefix("").from(5);
    request.silence_max = Duration::from_millis(200);
    let mut watch = client.build().unwrap().watch(request).await.unwrap();
    for revision in [5, 6] {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    assert_eq!(servers.each_ref().map(|server| server.seen().len()), [1, 1]);
}

#[tokio::test]
async fn to_begin_takes_no_longer_than_the_deadline() {
    let silent = Canned::start(|_| Reply::Hang).await;
    // The second try would end at nearly twice the deadline.
    let client = KvClient::builder([&silent.address]).try_time_max(LONG * 9 / 10);
    let client = client.build().unwrap().with_deadline(LONG);
    let began = Instant::now();
    let watch = client.watch(WatchRequest::prefix("").from(5)).await;
    let took = began.elapsed();
    assert!(matches!(watch, Err(Error::Unavailable { .. })));
    assert_eq!(silent.seen().len(), 2, "it did not try again");
    assert!(took >= LONG && took < LONG * 3 / 2, "{took:?}");
}

#[tokio::test]
async fn who_did_not_ask_for_long_is_given_first_what_has_come() {
    let silence_max = Duration::from_millis(50);
    let (tx, rx) = mpsc::channel(1);
    let stream = Mutex::new(Some(rx));
    let server = Canned::start(move |_| {
        let stream = stream.lock().unwrap().take();
        stream.map_or_else(|| problem(404, "not-found"), Reply::Stream)
    })
    .await;
    let mut request = WatchRequest::prefix("").from(5);
    request.silence_max = silence_max;
    let mut watch = server.client().watch(request).await.unwrap();
    for revision in [5, 6] {
        tx.send(put("a", revision, true).into()).await.unwrap();
        // It is busy with something else for so long.
        tokio::time::sleep(silence_max * 2).await;
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_changes_of_another_cluster_are_not_taken_for_those_that_come_next() {
    let clusters = Mutex::new(vec!["two", "one", "one"]);
    let server = Canned::start(move |_| {
        let mut clusters = clusters.lock().unwrap();
        let left = clusters.len() as u64;
        let head = vec![
            ("content-type", "text/event-stream".to_owned()),
            ("x-kv-cluster", clusters.pop().unwrap_or("two").to_owned()),
        ];
        Reply::Answer(200, head, put("a", 8 - left, true).into())
    })
    .await;
    let mut watch = server
        .client()
        .watch(WatchRequest::prefix("").from(5))
        .await
        .unwrap();
    for revision in [5, 6] {
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    let error = watch.next().await.unwrap_err();
    assert!(error.is_compacted(), "{error:?}");
}
