//! What is under way and holds up what comes next, so that the next may be larger.
//! Invariant: what was begun is counted until it is dropped, whoever drops it and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

#[derive(Default)]
pub struct UnderWay {
    count: AtomicUsize,
    fewer: Notify,
}

impl UnderWay {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until something has ended since the last such wait. Cancel-safe; for one that waits.
    pub async fn fewer(&self) {
        self.fewer.notified().await;
    }
}

/// One that is under way, until it is dropped.
pub struct Going(Arc<UnderWay>);

impl Going {
    pub fn begin(under_way: &Arc<UnderWay>) -> Self {
        under_way.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(under_way))
    }

    /// Begins only if nothing else is under way.
    pub fn begin_alone(under_way: &Arc<UnderWay>) -> Option<Self> {
        let begun = under_way
            .count
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
        begun.is_ok().then(|| Self(Arc::clone(under_way)))
    }

    /// Waits for `work`, which holds up others meanwhile; `None` when that has lasted for `hold`. Whoever wants it done
    /// goes on waiting then.
    pub async fn hold_up<W: Future + Unpin>(self, hold: Duration, work: W) -> Option<W::Output> {
        let done = tokio::time::timeout(hold, work).await.ok();
        drop(self);
        done
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }
}
