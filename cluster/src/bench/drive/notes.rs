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
    pub(super) fn new(start: Instant, answered_until: Option<Instant>) -> anyhow::Result<Self> {
        Ok(Self {
            start,
            answered_until,
            tally: RefCell::new(Tally::new(start)?),
            operations_in_all: Cell::new(0),
        })
    }

    /// What began before the warm-up was over is not among the figures.
    pub(super) fn note(&self, outcome: Outcome, begin: Instant, now: Instant) {
        let done = outcome == Outcome::Done;
        if done {
            self.operations_in_all.update(|count| count + 1);
        }
        if done && self.is_too_late(now) {
            self.note_too_late(begin, now);
        } else if begin >= self.start {
            self.tally.borrow_mut().note(outcome, begin, now);
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

    pub(super) fn end(self, elapsed: Duration) -> Seen {
        let (figures, errors) = self.tally.into_inner().end(elapsed);
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
    fn the_warm_up_counts_only_in_all() {
        let warm = Instant::now();
        let start = warm + SECOND;
        let notes = Notes::new(start, None).unwrap();
        notes.note(Outcome::Done, warm, start + SECOND / 2);
        notes.note(Outcome::Broken, warm, start + SECOND / 2);
        notes.note(Outcome::Done, start, start + SECOND / 100);
        notes.note(Outcome::Broken, start, start + SECOND / 100);
        let seen = notes.end(SECOND);
        assert_eq!((seen.figures.operations, seen.operations_in_all), (1, 2));
        assert!(seen.figures.max_ms < 11.0, "{seen:?}");
        assert_eq!(seen.errors, BTreeMap::from([("no answer".to_owned(), 1)]));
    }

    #[test]
    fn an_answer_that_comes_too_late_is_an_error_and_took_as_long_as_it_took() {
        let warm = Instant::now();
        let start = warm + SECOND;
        let notes = Notes::new(start, Some(start + SECOND)).unwrap();
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
