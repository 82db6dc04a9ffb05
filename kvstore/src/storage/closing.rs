//! Tells when a database is closed, which is when the last of many threads lets go of it.
//! A process must not end before: RocksDB takes down its globals at exit, and aborts who still closes then.

use tokio::sync::watch;

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
