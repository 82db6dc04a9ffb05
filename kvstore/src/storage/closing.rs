//! Tells when a database is closed, which is when the last of many threads lets go of it.
//! A process must not end before: RocksDB takes down its globals at exit, and aborts who still closes then.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

/// A disk that is only slow answers sooner.
const PATIENCE: Duration = Duration::from_secs(3);

/// A thread of ours that is waited for by whoever drops this: what ends it must have been dropped before. But not without
/// end, since a disk that hangs holds it up, and the node may have no other thread for all else than the one that waits.
pub(crate) struct Joined {
    thread: Option<JoinHandle<()>>,
    /// Nothing is ever sent: what comes is the end.
    ended: Mutex<Receiver<()>>,
}

impl Joined {
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (ends, ended) = sync_channel(0);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            work();
            drop(ends);
        })?;
        Ok(Self {
            thread: Some(thread),
            ended: Mutex::new(ended),
        })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let ended = self.ended.get_mut().expect("nobody locks it");
        let Some(thread) = self.thread.take() else { return };
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let name = thread.thread().name();
            tracing::warn!(
                thread.name = name,
                "a thread does not end, most likely for its disk; it is left to itself"
            );
            return;
        }
        // A panic in it was logged where it happened.
        thread.join().ok();
    }
}

/// The last field of what holds a database, so that it is dropped after it.
pub(crate) struct Closing(watch::Sender<()>);

pub(crate) struct Closed(watch::Receiver<()>);

impl Closing {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn closed(&self) -> Closed {
        Closed(self.0.subscribe())
    }
}

impl Closed {
    pub(crate) async fn wait(mut self) {
        // Nothing is ever sent: what comes is the end.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_is_held_up_is_not_waited_for_without_end() {
        let (release, held) = sync_channel::<()>(1);
        let thread = Joined::spawn("held", move || {
            held.recv_timeout(4 * PATIENCE).ok();
        });
        let began = Instant::now();
        drop(thread.expect("it starts"));
        let took = began.elapsed();
        assert!((PATIENCE..3 * PATIENCE).contains(&took), "waited for {took:?}");
        drop(release);
    }
}
