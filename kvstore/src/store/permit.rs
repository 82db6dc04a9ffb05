//! The right of a batch to be under way, of which there are few.
//! Invariant: a batch that gave it back while it rests takes it again before it is tried once more. Otherwise all that
//! ever rested would be under way at once as soon as the leader takes something, and leave no room to anybody else.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Permit {
    held: Option<OwnedSemaphorePermit>,
    /// Where it is taken again.
    lent: Option<Arc<Semaphore>>,
}

impl Permit {
    /// For what goes alone, and needs none.
    pub(super) fn none() -> Self {
        Self {
            held: None,
            lent: None,
        }
    }

    pub(super) fn held(permit: OwnedSemaphorePermit) -> Self {
        Self {
            held: Some(permit),
            ..Self::none()
        }
    }

    /// For good.
    pub(super) fn give_up(&mut self) {
        self.held = None;
    }

    /// Until it is taken again, others may try.
    pub(super) fn lend(&mut self) {
        if let Some(permit) = self.held.take() {
            self.lent = Some(Arc::clone(permit.semaphore()));
        }
    }

    /// Waits until there is one again, if it was lent. Cancel-safe.
    pub(super) async fn take_again(&mut self) {
        if let Some(all) = &self.lent {
            let permit = Arc::clone(all).acquire_owned().await;
            self.held = Some(permit.expect("the semaphore is never closed"));
            self.lent = None;
        }
    }
}
