//! When a process that died by itself is started again, and when that makes no sense any more.
//! Invariant: the pauses grow, and so many deaths within the window are the end of it.
//! It must not know how a process is started.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

const DELAY_MIN: Duration = Duration::from_millis(200);
/// So many deaths within the window mean that it will not come up by itself.
const DEATHS_MAX: usize = 5;
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// The deaths of one process that still count.
#[derive(Debug, Default)]
pub(super) struct Deaths(VecDeque<Instant>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    StartAfter(Duration),
    GiveUp { deaths: usize },
}

impl Deaths {
    pub(super) fn note(&mut self, now: Instant) -> Next {
        self.0.retain(|death| now.duration_since(*death) < WINDOW);
        self.0.push_back(now);
        let deaths = self.0.len();
        if deaths >= DEATHS_MAX {
            return Next::GiveUp { deaths };
        }
        Next::StartAfter(DELAY_MIN * (1 << (deaths - 1)))
    }

    /// A user wants it to run: what was is no longer held against it.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_it_makes_no_sense_any_more() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let delays = [200, 400, 800, 1600].map(|ms| Next::StartAfter(Duration::from_millis(ms)));
        for delay in delays {
            assert_eq!(deaths.note(start), delay);
        }
        assert_eq!(deaths.note(start), Next::GiveUp { deaths: 5 });
        deaths.forget();
        assert_eq!(deaths.note(start), Next::StartAfter(DELAY_MIN));
    }

    #[test]
    fn deaths_of_long_ago_do_not_count() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        for number in 0..100 {
            let next = deaths.note(start + 15 * number * Duration::from_secs(1));
            assert!(
                matches!(next, Next::StartAfter(delay) if delay <= 2 * DELAY_MIN),
                "{next:?}"
            );
        }
    }
}
