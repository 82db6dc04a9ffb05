//! When the request that is being answered came: before its first byte was read from the socket.
//! Invariant: whatever holds up this process after that, be it in the middle of a handler, counts as time since then. What
//! lies in the socket meanwhile is no matter: who has given up has closed it, which is seen before the request is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Since;

tokio::task_local! {
    static CAME: Since;
}

/// Of what comes by no connection, as from this process itself: now.
pub fn came() -> Since {
    CAME.try_with(|came| *came).unwrap_or_else(|_none| Since::now())
}

/// Answers a request that came then.
pub async fn answering<F: Future>(came: Since, answer: F) -> F::Output {
    CAME.scope(came, answer).await
}

/// The last moment before something was read from a connection.
#[derive(Clone, Debug)]
pub(crate) struct LastRead(Arc<AtomicU64>);

impl LastRead {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(Since::now().to_nanos())))
    }

    pub(crate) fn note(&self) {
        self.0.store(Since::now().to_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Since {
        Since::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_request_is_as_old_as_what_was_read_of_it() {
        let read = LastRead::new();
        let before = read.get();
        let hour = Duration::from_hours(1);
        let told = answering(before.earlier(hour), async { came() }).await;
        assert!(told.elapsed() >= hour);
        assert!(came().elapsed() < hour, "nobody asks");
        while read.get() == before {
            read.note();
        }
        assert!(read.get() > before);
    }
}
