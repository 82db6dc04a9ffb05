//! Tracked tasks: stopping, draining, parents and children.

use std::time::Duration;

use service::tasks::Tasks;
use tokio::sync::oneshot;

use crate::harness::DEADLINE;

#[tokio::test]
async fn a_stop_reaches_children_but_not_parents() {
    let parent = Tasks::new();
    let (one, two) = (parent.child(), parent.child());
    one.stop();
    assert!(one.is_stopping() && !two.is_stopping() && !parent.is_stopping());
    parent.stop();
    tokio::time::timeout(DEADLINE, two.stopping())
        .await
        .expect("the child was not told");
}

#[tokio::test]
async fn a_parent_waits_for_what_its_grandchildren_run() {
    let parent = Tasks::new();
    let (let_go, held) = oneshot::channel::<()>();
    let grandchild = parent.child().child();
    grandchild.spawn("held", held);
    assert_eq!(grandchild.running(), 1);
    assert!(
        !parent.drain(Duration::from_millis(10)).await,
        "drained over a running task"
    );
    let_go.send(()).unwrap();
    assert!(parent.drain(DEADLINE).await);
    assert_eq!(grandchild.running(), 0);
}

#[tokio::test]
async fn a_panic_ends_only_its_task() {
    let tasks = Tasks::new();
    let failed = tasks.spawn("broken", async { panic!("on purpose") });
    assert!(failed.await.unwrap_err().is_panic());
    let fine = tasks.spawn("fine", async { 7 });
    assert_eq!(fine.await.unwrap(), 7);
    assert_eq!(tasks.spawn_blocking("blocking", || 8).await.unwrap(), 8);
    assert!(tasks.drain(DEADLINE).await);
}

#[tokio::test]
async fn sigterm_stops() {
    let tasks = Tasks::new();
    tasks.stop_on_signals().unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    tokio::time::timeout(DEADLINE, tasks.stopping())
        .await
        .expect("the signal was not seen");
    assert!(tasks.drain(DEADLINE).await);
}
