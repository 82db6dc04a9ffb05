//! Tracked tasks and the one signal that ends them.
//! Invariant: a task spawned here is counted by this set and by every set above it until it ends,
//! so that a drained parent means drained children; nothing is detached. What is spawned while a request is answered
//! goes on under the id of that request.
//! It must not know what the tasks do.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::request_id::Carried;

/// A set of tasks that are stopped and waited for together. Clones are the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    set: Arc<Set>,
}

#[derive(Debug)]
struct Set {
    stop: CancellationToken,
    tracker: TaskTracker,
    parent: Option<Tasks>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    pub fn new() -> Self {
        Self::with(CancellationToken::new(), None)
    }

    /// A set that stops with this one, but can also be stopped and drained alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::with(self.set.stop.child_token(), Some(self.clone()))
    }

    fn with(stop: CancellationToken, parent: Option<Tasks>) -> Self {
        let tracker = TaskTracker::new();
        // A closed tracker still takes tasks; being closed is what lets `wait` end when it is empty.
        tracker.close();
        Self {
            set: Arc::new(Set {
                stop,
                tracker,
                parent,
            }),
        }
    }

    /// Runs a task of this set. A task that panics is logged under its name.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let counted = self.tokens_above();
        let watch = PanicWatch { name };
        let task = Carried::take().into_task(task);
        self.set.tracker.spawn(async move {
            let _counted = counted;
            let _watch = watch;
            task.await
        })
    }

    /// Runs blocking work on a thread of tokio's blocking pool, counted like a task.
    pub fn spawn_blocking<F, T>(&self, name: &'static str, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let counted = self.tokens_above();
        let watch = PanicWatch { name };
        let carried = Carried::take();
        self.set.tracker.spawn_blocking(move || {
            let _counted = counted;
            let _watch = watch;
            carried.into_blocking(work)
        })
    }

    fn tokens_above(&self) -> Vec<TaskTrackerToken> {
        let mut tokens = Vec::new();
        let mut above = self.set.parent.as_ref();
        while let Some(tasks) = above {
            tokens.push(tasks.set.tracker.token());
            above = tasks.set.parent.as_ref();
        }
        tokens
    }

    /// Tells every task to end. Safe to call again.
    pub fn stop(&self) {
        self.set.stop.cancel();
    }

    /// Waits until the set is told to stop. Cancel-safe.
    pub async fn stopping(&self) {
        self.set.stop.cancelled().await;
    }

    pub fn is_stopping(&self) -> bool {
        self.set.stop.is_cancelled()
    }

    /// How many tasks still run.
    pub fn running(&self) -> usize {
        self.set.tracker.len()
    }

    /// Waits for all tasks to end; false when some still run at the deadline.
    pub async fn drain(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.set.tracker.wait())
            .await
            .is_ok()
    }

    /// From now on SIGTERM and SIGINT stop this set, in place of ending the process at once.
    pub fn stop_on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tasks = self.clone();
        self.spawn("signals", async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = tasks.stopping() => return,
            };
            tracing::info!(signal.name = name, "told to stop");
            tasks.stop();
        });
        Ok(())
    }
}

/// Dropped while its task unwinds, it leaves a line in the log that names the task.
struct PanicWatch {
    name: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task.name = self.name, "a task ended by a panic");
        }
    }
}
