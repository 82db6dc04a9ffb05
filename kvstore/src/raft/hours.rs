//! The cluster's clock, which says how old a kept answer or a piece of history is. It goes on while somebody leads, as
//! fast as that node's monotonic clock, and no faster.
//!
//! Invariant: it never follows a clock that was set. An answer that is forgotten too early lets a write happen twice; so
//! does a jump of a clock that is believed. It may fall behind the time of day, and then things are kept for longer.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The moment at which this node last took over what the cluster's clock said.
#[derive(Default)]
pub struct Hours(Mutex<Option<(Instant, u64)>>);

impl Hours {
    /// What the clock says, when the state that was applied last says `applied_ms`.
    pub fn now_ms(&self, applied_ms: u64) -> u64 {
        self.at(Instant::now(), applied_ms, service::time::now_ms)
    }

    /// A new cluster begins with the time of day.
    fn at(&self, now: Instant, applied_ms: u64, time_of_day: impl FnOnce() -> u64) -> u64 {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = since.map(|(moment, ms)| {
            let passed = now.saturating_duration_since(moment).as_millis();
            ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
        });
        match here {
            Some(here) if here >= applied_ms => here,
            _ => {
                let begin = if applied_ms == 0 {
                    time_of_day()
                } else {
                    applied_ms
                };
                *since = Some((now, begin));
                begin
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WRONG: fn() -> u64 = || panic!("the time of day is asked only once for each cluster");

    #[test]
    fn it_begins_with_the_time_of_day_and_goes_on_by_itself() {
        let (hours, begin) = (Hours::default(), Instant::now());
        assert_eq!(hours.at(begin, 0, || 5000), 5000);
        let later = begin + Duration::from_millis(700);
        assert_eq!(hours.at(later, 5000, WRONG), 5700);
        assert_eq!(hours.at(later, 0, WRONG), 5700);
    }

    #[test]
    fn who_leads_next_goes_on_from_what_was_applied() {
        let (hours, begin) = (Hours::default(), Instant::now());
        assert_eq!(hours.at(begin, 9000, WRONG), 9000);
        let later = begin + Duration::from_millis(10);
        assert_eq!(hours.at(later, 9000, WRONG), 9010);
        // Another has led meanwhile, and its clock went ahead.
        assert_eq!(hours.at(later, 9500, WRONG), 9500);
        assert_eq!(hours.at(later + Duration::from_millis(1), 9500, WRONG), 9501);
    }
}
