//! Whose turn it is to do much work for a watcher: reading tables, or putting much into words.
//!
//! Invariant: few work at the same time, however many want to, and a turn lasts as long as the work does, also when
//! nobody waits for that any more. It must not know what the work is.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Fewer than processors that a node has at its best: the rest of it must go on.
const TURNS: usize = 2;

/// Goes along to the thread that works.
#[derive(Debug)]
pub(super) struct Turn {
    _held: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// Whoever waits for it has to be polled, or else holds it up: that is not left to a client.
    pub(super) async fn turn(&self) -> Turn {
        let held = Arc::clone(&self.all).acquire_owned().await;
        Turn {
            _held: held.expect("the semaphore is never closed"),
        }
    }
}
