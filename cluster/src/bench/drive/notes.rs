//! What the callers of one order have seen together: what counts, what counts only in all, and what came too late.
//! Invariant: no call that was to be made after the warm-up is left out, however it ended.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::Seen;
use crate::bench::closed_loop::Tally;
use crate::bench::connection::Outcome;

/// Errors of those calls that were not answered in time.
pub(super) const TOO_LATE: &str = "too late";

/// What the callers of one order see together. They run on one thread.
pub(super) struct Notes {
    start: Instant,
    /// What is answered later has failed, and what has not begun by then never does: a side that stalls would else keep
    /// its callers busy without end.
    answered_until: Option<Instant>,
    tally: RefCell<Tally>,
    operations_in_all: Cell<u64>,
}

impl Notes {
    /// Of closed loops, which begin no call after `end`.
    pub(super) fn closed(start: Instant, end: Instant) -> anyhow::Result<Self> {
        Ok(Self::new(start, Tally::closed(start, end)?))
    }

    /// Of open loops, whose calls are answered too late once this moment is over.
    pub(super) fn open(start: Instant, answered_until: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            answered_until: Some(answered_until),
            ..Self::whole(start)?
        })
    }

    /// Of work that is done to its end, however long that takes.
    pub(super) fn whole(start: Instant) -> anyhow::Result<Self> {
        Ok(Self::new(start, Tally::whole(start)?))
    }

    fn new(start: Instant, tally: Tally) -> Self {
        Self {
            start,
            answered_until: None,
            tally: RefCell::new(tally),
            operations_in_all: Cell::new(0),
        }
    }

    /// What began before the warm-up was over is not among the figures, but for the rate of a closed loop.
    pub(super) fn note(&self, outcome: Outcome, begin: Instant, now: Instant) {
        let done = outcome == Outcome::Done;
        if done {
            self.operations_in_all.update(|count| count + 1);
        }
        if done && self.is_too_late(now) {
            self.note_too_late(begin, now);
        } else if begin >= self.start {
            self.tally.borrow_mut().note(outcome, begin, now);
        } else if done {
            self.tally.borrow_mut().note_early(now);
        }
    }

    pub(super) fn is_too_late(&self, now: Instant) -> bool {
        self.answered_until.is_some_and(|until| now > until)
    }

    /// It counts as an error that took until now, whether it was answered or not even made: left out, it would hide the
    /// worst of all stalls.
    pub(super) fn note_too_late(&self, begin: Instant, now: Instant) {
        if begin >= self.start {
            self.tally.borrow_mut().fail(TOO_LATE, begin, now);
        }
    }

    /// `took` is the time of work that has no end of its own.
    pub(super) fn end(self, took: Duration) -> Seen {
        let (figures, errors) = self.tally.into_inner().end(took);
        Seen {
            figures,
            operations_in_all: self.operations_in_all.get(),
            errors,
            generator_cpu_s: 0.0,
            generator_s: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_warm_up_counts_only_in_all_and_what_ends_after_it_in_the_rate() {
        let warm = Instant::now();
        let start = warm + SECOND;
        let notes = Notes::closed(start, start + SECOND).unwrap();
        notes.note(Outcome::Done, warm, warm + SECOND / 2);
        notes.note(Outcome::Done, warm, start + SECOND / 2);
        notes.note(Outcome::Broken, warm, start + SECOND / 2);
        notes.note(Outcome::Done, start, start + SECOND / 100);
        notes.note(Outcome::Broken, start, start + SECOND / 100);
        let seen = notes.end(SECOND);
        assert_eq!((seen.figures.operations, seen.operations_in_all), (1, 3));
        assert_eq!((seen.figures.seconds, seen.figures.operations_per_s), (1.0, 2.0));
        assert!(seen.figures.max_ms < 11.0, "{seen:?}");
        assert_eq!(seen.errors, BTreeMap::from([("no answer".to_owned(), 1)]));
    }

    /// By the time until its last call has ended it would be a fifth less.
    #[test]
    fn a_closed_loop_of_calls_as_long_as_half_the_time_shows_two_of_each_caller() {
        let warm = Instant::now();
        let (start, took) = (warm + SECOND / 4, SECOND / 2);
        let end = start + SECOND;
        let notes = Notes::closed(start, end).unwrap();
        for _ in 0..4 {
            let mut begin = warm;
            while begin < end {
                notes.note(Outcome::Done, begin, begin + took);
                begin += took;
            }
        }
        let seen = notes.end(warm.elapsed());
        assert_eq!((seen.figures.operations, seen.operations_in_all), (8, 12));
        assert_eq!((seen.figures.seconds, seen.figures.operations_per_s), (1.0, 8.0));
        assert!(seen.figures.p50_ms > 499.0, "{seen:?}");
    }

    #[test]
    fn what_an_open_loop_began_in_its_warm_up_is_not_of_its_rate() {
        let warm = Instant::now();
        let start = warm + SECOND;
        let notes = Notes::open(start, start + 2 * SECOND).unwrap();
        notes.note(Outcome::Done, warm, start + SECOND / 2);
        notes.note(Outcome::Done, start, start + SECOND / 2);
        let seen = notes.end(SECOND);
        assert_eq!((seen.figures.seconds, seen.figures.operations_per_s), (1.0, 1.0));
    }

    #[test]
    fn an_answer_that_comes_too_late_is_an_error_and_took_as_long_as_it_took() {
        let warm = Instant::now();
        let start = warm + SECOND;
        let notes = Notes::open(start, start + SECOND).unwrap();
        notes.note(Outcome::Done, start, start + SECOND);
        notes.note(Outcome::Done, start, start + 2 * SECOND);
        notes.note(Outcome::Broken, start, start + 2 * SECOND);
        // Not of one that began in the warm-up.
        notes.note(Outcome::Done, warm, start + 3 * SECOND);
        let seen = notes.end(SECOND);
        assert_eq!((seen.figures.operations, seen.operations_in_all), (1, 3));
        let errors = [(TOO_LATE, 1), ("no answer", 1)].map(|(why, count)| (why.to_owned(), count));
        assert_eq!(seen.errors, BTreeMap::from(errors));
        assert!((1990.0..2010.0).contains(&seen.figures.max_ms), "{seen:?}");
    }
}
