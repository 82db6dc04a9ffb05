//! What the thread tells of what it could not write.

use std::fs;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt as _;
use service::config::{MirrorEngine, OnLoss};

use super::*;
use crate::copy;
use crate::row::Change;

const DEADLINE: Duration = Duration::from_secs(20);

async fn asked(orders: &Orders, order: fn(Answer) -> Order) -> anyhow::Result<()> {
    let (done, answered) = oneshot::channel();
    assert!(orders.send(order(done)).await.is_ok());
    answered.await.unwrap()
}

/// The thread over a new copy in SQLite.
fn started(folder: &Path, tasks: &Tasks) -> (Orders, Arc<Progress>) {
    let (engine, mode) = (MirrorEngine::Sqlite, MirrorMode::Sync);
    let (writer, _reader) = copy::open(folder, engine, mode, 0).unwrap();
    let config = MirrorConfig {
        name: "mirror-one".to_owned(),
        address: "127.0.0.1:0".to_owned(),
        engine,
        mode,
        on_loss: OnLoss::Degrade,
        interval_ms: 20,
    };
    let progress = Arc::new(Progress::new(0, writer.head().incarnation));
    (start(writer, Arc::clone(&progress), &config, tasks), progress)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_could_not_be_set_aside_is_no_trouble_for_longer_than_that() {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let (orders, progress) = started(folder.path(), &tasks);
    // What an earlier try left behind, and cannot be removed.
    let left = folder.path().join("of-another-5.tmp");
    // It can be set aside after all, or it need not be.
    for end in [Order::SetAside as fn(Answer) -> Order, Order::TryToWrite] {
        fs::create_dir(&left).unwrap();
        asked(&orders, Order::SetAside).await.unwrap_err();
        assert!(progress.now().trouble.is_some());
        fs::remove_dir(&left).unwrap();
        asked(&orders, end).await.unwrap();
        assert_eq!(progress.now().trouble, None);
    }
    tasks.stop();
    tasks.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_copy_that_was_given_up_is_not_told_as_being_made() {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let (orders, progress) = started(folder.path(), &tasks);
    // A number that SQLite does not have.
    let row = Row {
        modified: u64::MAX,
        ..Row::default()
    };
    asked(&orders, Order::BeginRebuild).await.unwrap();
    assert_eq!(progress.now().rebuilding, Some(0));
    assert!(orders.send(Order::Rows(vec![row])).await.is_ok());
    let (head, carried_out) = oneshot::channel();
    assert!(orders.send(Order::Head(head)).await.is_ok());
    carried_out.await.unwrap();
    let told = progress.now();
    assert!(told.trouble.is_some());
    assert_eq!(told.rebuilding, None);
    tasks.stop();
    tasks.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_takes_its_room_until_the_thread_ends() {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let (orders, progress) = started(folder.path(), &tasks);
    // A number that SQLite does not have; together more than half of what may wait.
    let row = Row {
        key: "a".to_owned(),
        value: Bytes::from(vec![0; 1 << 20]),
        modified: u64::MAX,
        ..Row::default()
    };
    let batch = |revision| {
        Order::Apply(Batch {
            revision,
            changes: vec![Change::Put(row.clone()); 40],
            kept: None,
            arrived: Instant::now(),
        })
    };
    assert!(orders.send(batch(1)).await.is_ok());
    let mut told = progress.subscribe();
    let in_trouble = told.wait_for(|applied| applied.trouble.is_some());
    timeout(DEADLINE, in_trouble).await.unwrap().unwrap();
    let mut next = pin!(orders.send(batch(2)));
    assert!(next.as_mut().now_or_never().is_none(), "there is room for both");
    tasks.stop();
    // Sent or not: it waits for nobody any more.
    let _sent = timeout(DEADLINE, next).await.unwrap();
    tasks.drain(DEADLINE).await;
}
