//! A backup comes from the first node that makes one, and is waited for as long as that node lives.

use crate::canned::{Canned, Reply, nobody, ok, problem};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kvstore_client::{Error, KvClient, Trouble};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BACKUP: &[u8] = b"all there is";
/// Longer than a node is waited for that shows no sign of life.
const LONG: Duration = Duration::from_millis(1700);

async fn fetch(client: &KvClient) -> kvstore_client::Result<Vec<u8>> {
    whole(client.snapshot().await?).await
}

async fn fetch_within(client: &KvClient, time_max: Duration) -> kvstore_client::Result<Vec<u8>> {
    whole(client.snapshot_within(time_max).await?).await
}

async fn whole(pieces: impl Stream<Item = kvstore_client::Result<Bytes>>) -> kvstore_client::Result<Vec<u8>> {
    let mut pieces = Box::pin(pieces);
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// How often this node was asked for a backup.
fn begun_at(node: &Canned) -> usize {
    let lines = node.lines();
    lines.iter().filter(|line| *line == "GET /v1/snapshot").count()
}

/// Makes a backup at once.
async fn quick() -> Canned {
    Canned::start(|_| Reply::Answer(200, Vec::new(), BACKUP.into())).await
}

/// Shows that it lives, and nothing else but this.
async fn alive(reply: fn() -> Reply) -> Canned {
    Canned::start(move |seen| {
        if seen.target == "/livez" {
            ok(json!({}))
        } else {
            reply()
        }
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_gone_or_busy_is_passed_over() {
    let (busy, quick) = (Canned::start(|_| problem(503, "overloaded")).await, quick().await);
    // Each begins at a node of its own choice.
    for _ in 0..12 {
        let endpoints = [nobody().await, busy.address.clone(), quick.address.clone()];
        let client = KvClient::builder(endpoints).build().unwrap();
        assert_eq!(fetch(&client).await.unwrap(), BACKUP);
    }
    let client = KvClient::builder([nobody().await, busy.address.clone()]);
    let client = client.deadline(Duration::from_millis(500)).build().unwrap();
    let error = fetch(&client).await.unwrap_err();
    assert_eq!(error.code(), "overloaded", "it is not so that no node answers");
}

#[tokio::test]
async fn what_a_node_said_is_told_although_the_time_is_over() {
    let node = Canned::replies(vec![|| problem(503, "overloaded"), || Reply::Hang]).await;
    let client = node.client().with_deadline(Duration::from_millis(400));
    let error = fetch(&client).await.unwrap_err();
    assert_eq!((error.code(), node.seen().len()), ("overloaded", 2));
}

#[tokio::test]
async fn a_node_that_fails_at_the_work_is_not_made_to_repeat_it() {
    let (broken, quick) = (Canned::start(|_| problem(500, "internal")).await, quick().await);
    let error = fetch(&broken.client()).await.unwrap_err();
    assert_eq!((error.code(), broken.seen().len()), ("internal", 1));
    let client = KvClient::builder([&broken.address, &quick.address]);
    assert_eq!(fetch(&client.build().unwrap()).await.unwrap(), BACKUP);
}

#[tokio::test]
async fn a_node_that_fails_at_the_work_is_left_for_one_that_is_busy() {
    // Each begins at a node of its own choice.
    for _ in 0..6 {
        let broken = Canned::start(|_| problem(500, "internal")).await;
        let busy = Canned::replies(vec![
            || problem(503, "overloaded"),
            || problem(503, "overloaded"),
            || Reply::Answer(200, Vec::new(), BACKUP.into()),
        ])
        .await;
        let client = KvClient::builder([&broken.address, &busy.address]);
        assert_eq!(fetch(&client.build().unwrap()).await.unwrap(), BACKUP);
        assert_eq!(begun_at(&broken), 1, "{:?}", broken.lines());
    }
}

#[tokio::test]
async fn a_node_that_stands_still_is_passed_over() {
    let (paused, quick) = (Canned::start(|_| Reply::Hang).await, quick().await);
    // Each begins at a node of its own choice.
    while paused.seen().is_empty() {
        let client = KvClient::builder([&paused.address, &quick.address]);
        assert_eq!(fetch(&client.build().unwrap()).await.unwrap(), BACKUP);
    }
}

#[tokio::test]
async fn a_node_that_lives_may_take_long_to_begin() {
    let slow = alive(|| Reply::Late(LONG, BACKUP.into())).await;
    let client = KvClient::builder([&slow.address]).try_time_max(LONG / 10);
    assert_eq!(fetch(&client.build().unwrap()).await.unwrap(), BACKUP);
    assert_eq!(begun_at(&slow), 1, "{:?}", slow.lines());
}

#[tokio::test]
async fn what_does_not_begin_ends_with_the_deadline() {
    // The second begins to refuse shortly before, and gets no further.
    let silent: [fn() -> Reply; 2] = [|| Reply::Hang, || Reply::Head(LONG * 9 / 10, 503)];
    for reply in silent {
        let slow = alive(reply).await;
        let began = Instant::now();
        let error = fetch(&slow.client().with_deadline(LONG)).await.unwrap_err();
        let took = began.elapsed();
        let timed_out = matches!(
            error,
            Error::Unavailable {
                source: Trouble::Timeout
            }
        );
        assert!(
            timed_out && took >= LONG && took < LONG * 9 / 5,
            "{error:?} {took:?}"
        );
    }
}

#[tokio::test]
async fn a_node_at_work_is_waited_for_beyond_the_time_for_finding_one() {
    let slow = alive(|| Reply::Late(LONG, BACKUP.into())).await;
    let client = slow.client().with_deadline(LONG / 4);
    assert_eq!(fetch_within(&client, LONG * 20).await.unwrap(), BACKUP);
    assert_eq!(begun_at(&slow), 1, "{:?}", slow.lines());
    // Nobody, and one that has no time, are not at work, however lively.
    let busy = alive(|| problem(503, "overloaded")).await;
    for (address, code) in [
        (nobody().await, "connection"),
        (busy.address.clone(), "overloaded"),
    ] {
        let client = KvClient::builder([address]).deadline(LONG / 4);
        let began = Instant::now();
        let error = fetch_within(&client.build().unwrap(), LONG * 20)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code);
        assert!(began.elapsed() < LONG * 5, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn when_a_node_dies_at_the_work_there_is_time_to_find_another() {
    let quick = quick().await;
    // It shows no more than once that it lives.
    let looks = AtomicUsize::new(0);
    let dying = Canned::start(move |seen| {
        let is_look = seen.target == "/livez";
        if is_look && looks.fetch_add(1, Ordering::Relaxed) == 0 {
            ok(json!({}))
        } else {
            Reply::Hang
        }
    })
    .await;
    // Each begins at a node of its own choice. The first dies later than that.
    while dying.seen().is_empty() {
        let client = KvClient::builder([&dying.address, &quick.address]).deadline(LONG / 2);
        let backup = fetch_within(&client.build().unwrap(), LONG * 20).await;
        assert_eq!(backup.unwrap(), BACKUP);
    }
    assert_eq!(begun_at(&dying), 1, "{:?}", dying.lines());
}
