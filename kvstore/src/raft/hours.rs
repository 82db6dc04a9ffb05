//! The cluster's clock, which says how old a kept answer or a piece of history is. It goes on while somebody leads, as
//! fast as that node's monotonic clock, and no faster.
//!
//! Invariant: it never follows a clock that was set, and never one of a lead that is over. An answer that is forgotten
//! too early lets a write happen twice; so does a jump of a clock that is believed. It may fall behind the time of day,
//! and then things are kept for longer.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::machine::host::Lead;

/// Absent until this node leads.
#[derive(Default)]
pub struct Hours(Mutex<Option<Since>>);

/// The moment at which this node took over what the cluster's clock said, and the lead of its own under which it did.
#[derive(Clone, Copy)]
struct Since {
    lead: Lead,
    moment: Instant,
    ms: u64,
}

impl Hours {
    /// What the clock says, when the state that was applied last says `applied_ms`; `lead` is this node's, if it leads.
    pub fn now_ms(&self, lead: Option<Lead>, applied_ms: u64) -> u64 {
        self.at(lead, Instant::now(), applied_ms, service::time::now_ms)
    }

    /// A new cluster begins with the time of day. Each lead begins with what was applied: those that led in between did
    /// so too, and this node's clock of before may be far ahead of them.
    fn at(
        &self,
        lead: Option<Lead>,
        now: Instant,
        applied_ms: u64,
        time_of_day: impl FnOnce() -> u64,
    ) -> u64 {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = since.filter(|since| lead == Some(since.lead));
        let here = same.map(|Since { moment, ms, .. }| {
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
                *since = lead.map(|lead| Since {
                    lead,
                    moment: now,
                    ms: begin,
                });
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
    const FIRST: Option<Lead> = Some(Lead { term: 1, node: 3 });
    const AGAIN: Option<Lead> = Some(Lead { term: 3, node: 3 });

    #[test]
    fn it_begins_with_the_time_of_day_and_goes_on_by_itself() {
        let (hours, begin) = (Hours::default(), Instant::now());
        assert_eq!(hours.at(FIRST, begin, 0, || 5000), 5000);
        let later = begin + Duration::from_millis(700);
        assert_eq!(hours.at(FIRST, later, 5000, WRONG), 5700);
        assert_eq!(hours.at(FIRST, later, 0, WRONG), 5700);
    }

    #[test]
    fn it_never_falls_behind_what_was_applied() {
        let (hours, begin) = (Hours::default(), Instant::now());
        assert_eq!(hours.at(FIRST, begin, 9000, WRONG), 9000);
        let later = begin + Duration::from_millis(10);
        assert_eq!(hours.at(FIRST, later, 9000, WRONG), 9010);
        // An entry of whoever led before is applied only now, and that one's clock was ahead.
        assert_eq!(hours.at(FIRST, later, 9500, WRONG), 9500);
        let later = later + Duration::from_millis(1);
        assert_eq!(hours.at(FIRST, later, 9500, WRONG), 9501);
    }

    #[test]
    fn who_leads_again_goes_on_from_what_was_applied() {
        let (hours, begin) = (Hours::default(), Instant::now());
        assert_eq!(hours.at(FIRST, begin, 9000, WRONG), 9000);
        let later = begin + Duration::from_hours(1);
        assert_eq!(hours.at(AGAIN, later, 9500, WRONG), 9500);
        let later = later + Duration::from_millis(1);
        assert_eq!(hours.at(AGAIN, later, 9500, WRONG), 9501);
    }

    #[test]
    fn it_stands_still_where_nobody_leads() {
        let (hours, begin) = (Hours::default(), Instant::now());
        for minutes in 0..2 {
            let now = begin + Duration::from_mins(minutes);
            assert_eq!(hours.at(None, now, 9000, WRONG), 9000);
        }
    }
}
