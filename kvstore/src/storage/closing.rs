//! Tells when a database is closed, which is when the last of many threads lets go of it.
//! A process must not end before: RocksDB takes down its globals at exit, and aborts who still closes then.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::watch;

/// A thread of ours that is waited for by whoever drops this: what ends it must have been dropped before.
pub(crate) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self(Some(thread)))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // A panic in it was logged where it happened.
        let _ended = self.0.take().map(JoinHandle::join);
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
