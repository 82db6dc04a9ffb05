//! The longest time in which nobody succeeded: what an outage is to those who wait.
//! Invariant: a gap that is still open counts with the length it has when one asks.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Gaps {
    last_success: Instant,
    longest: Duration,
    longest_began: Instant,
}

impl Gaps {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last_success: now,
            longest: Duration::ZERO,
            longest_began: now,
        }
    }

    pub(crate) fn success(&mut self, now: Instant) {
        let gap = self.open(now);
        if gap > self.longest {
            (self.longest, self.longest_began) = (gap, self.last_success);
        }
        self.last_success = now;
    }

    /// Forgets gaps that have ended; the one that is open goes on.
    pub(crate) fn forget(&mut self) {
        self.longest = Duration::ZERO;
    }

    /// Forgets gaps that had ended by then; one that reached beyond it stays.
    pub(crate) fn forget_before(&mut self, instant: Instant) {
        if self.longest_began + self.longest <= instant {
            self.forget();
        }
    }

    /// How long it is since the last success.
    pub(crate) fn open(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_success)
    }

    /// Where the longest one that has ended began.
    pub(crate) fn longest_began(&self) -> Instant {
        self.longest_began
    }

    pub(crate) fn longest(&self, now: Instant) -> Duration {
        self.longest.max(now.saturating_duration_since(self.last_success))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_also_while_it_is_open() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut gaps = Gaps::new(start);
        gaps.success(at(5));
        gaps.success(at(25));
        assert_eq!(gaps.longest(at(30)).as_millis(), 20);
        assert_eq!(gaps.longest_began(), at(5));
        gaps.forget_before(at(24));
        assert_eq!(gaps.longest(at(30)).as_millis(), 20);
        gaps.forget_before(at(25));
        assert_eq!(gaps.longest(at(32)).as_millis(), 7);
        gaps.success(at(40));
        assert_eq!(gaps.longest(at(41)).as_millis(), 15);
        assert_eq!(gaps.open(at(41)).as_millis(), 1);
    }
}
