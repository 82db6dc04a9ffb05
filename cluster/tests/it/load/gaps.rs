//! The longest time without a success.
//! Invariant: a gap that has not ended yet counts too.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    successes: Vec<Instant>,
}

impl Gaps {
    pub(crate) fn success(&mut self) {
        self.successes.push(Instant::now());
    }

    pub(crate) fn count_since(&self, from: Instant) -> usize {
        self.successes.iter().filter(|at| **at >= from).count()
    }

    /// Within `from..to`; successes of several clients come in almost any order.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Duration {
        let mut inside: Vec<Instant> = self.successes.clone();
        inside.retain(|at| (from..to).contains(at));
        inside.push(to);
        inside.sort();
        let mut last = from;
        let mut longest = Duration::ZERO;
        for at in inside {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}
