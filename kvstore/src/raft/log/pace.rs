//! How long this disk takes to sync the log: a moving average, and the sync under way.
//!
//! A sync that does not come back has no duration yet; its age counts instead, so that a disk that hangs is noticed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One slow sync among many fast ones says little.
const WEIGHT: u64 = 8;
const NONE: u64 = u64::MAX;

pub struct Pace {
    epoch: Instant,
    average_us: AtomicU64,
    began_us: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            average_us: AtomicU64::new(0),
            began_us: AtomicU64::new(NONE),
        }
    }
}

impl Pace {
    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(NONE - 1)
    }

    /// Called by the log's one writer.
    pub fn begin(&self) {
        self.began_us.store(self.now_us(), Ordering::Relaxed);
    }

    pub fn end(&self, took: Duration) {
        self.began_us.store(NONE, Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / WEIGHT);
        let average = self.average_us.load(Ordering::Relaxed);
        let next = (average * (WEIGHT - 1)).saturating_add(took) / WEIGHT;
        self.average_us.store(next, Ordering::Relaxed);
    }

    pub fn now(&self) -> Duration {
        let began = self.began_us.load(Ordering::Relaxed);
        let under_way = if began == NONE {
            0
        } else {
            self.now_us().saturating_sub(began)
        };
        Duration::from_micros(self.average_us.load(Ordering::Relaxed).max(under_way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_sync_is_little_and_many_are_much() {
        let pace = Pace::default();
        for _ in 0..100 {
            pace.end(Duration::from_millis(1));
        }
        pace.end(Duration::from_millis(100));
        assert!(pace.now() < Duration::from_millis(15), "{:?}", pace.now());
        for _ in 0..30 {
            pace.end(Duration::from_millis(100));
        }
        assert!(pace.now() > Duration::from_millis(90), "{:?}", pace.now());
        for _ in 0..100 {
            pace.end(Duration::from_millis(1));
        }
        assert!(pace.now() < Duration::from_millis(2), "{:?}", pace.now());
    }

    #[test]
    fn a_sync_that_does_not_come_back_counts_by_its_age() {
        let pace = Pace {
            epoch: Instant::now().checked_sub(Duration::from_secs(3)).unwrap(),
            ..Pace::default()
        };
        pace.began_us.store(0, Ordering::Relaxed);
        assert!(pace.now() >= Duration::from_secs(3));
    }
}
