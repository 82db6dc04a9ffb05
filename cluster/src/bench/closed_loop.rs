//! What the closed loops of all generators have in common: the tally, the figures, the table.
//! Invariant: only whole successful answers count as operations; everything else is an error, told by kind. But the
//! latencies are those of all calls, or a side that fails late would look fast. A closed loop's rate is of the calls
//! that ended within its time, by that time: what is still under way then makes it no lower, however long it takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::connection::Outcome;
use crate::context::Context;
use crate::probe::Gaps;

/// Two hours. What lies beyond would be told as less than it was. No call gets so much time; but in an open loop it
/// counts from when it was to begin, which may be an hour before it is given up.
const LATENCY_US_MAX: u64 = 2 * 3_600_000_000;

/// What all clients together have seen. They run on one thread.
pub(super) struct Tally {
    start: Instant,
    /// No call of a closed loop begins after it; work that is done to its end has none.
    end: Option<Instant>,
    /// Also of calls that failed: somebody has waited for them as well.
    latency_us: Histogram<u64>,
    operations: u64,
    /// Those that the rate is of.
    in_time: u64,
    errors: BTreeMap<String, u64>,
    gaps: Gaps,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Figures {
    /// The time that the rate is of.
    pub(super) seconds: f64,
    /// All that were begun within it and succeeded, however late.
    pub(super) operations: u64,
    /// In a closed loop of those that ended within it, whenever they were begun.
    pub(super) operations_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
    /// The longest time without any success.
    pub(super) stall_ms: f64,
}

impl Tally {
    /// Of closed loops, which begin no call after `end`.
    pub(super) fn closed(start: Instant, end: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            end: Some(end),
            ..Self::whole(start)?
        })
    }

    /// Of work that is done to its end, however long that takes.
    pub(super) fn whole(start: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            start,
            end: None,
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).context("make a histogram")?,
            operations: 0,
            in_time: 0,
            errors: BTreeMap::new(),
            gaps: Gaps::new(start),
        })
    }

    pub(super) fn note(&mut self, outcome: Outcome, begin: Instant, now: Instant) {
        if outcome == Outcome::Done {
            self.waited(begin, now);
            self.operations += 1;
            self.succeed(now);
        } else {
            self.fail(&word(outcome), begin, now);
        }
    }

    /// A call that began before the start and succeeded: in the rate of a closed loop it stands for one that is under
    /// way at the end; nothing else is told of it.
    pub(super) fn note_early(&mut self, now: Instant) {
        if self.end.is_some() && now >= self.start {
            self.succeed(now);
        }
    }

    fn succeed(&mut self, now: Instant) {
        self.gaps.success(now);
        if self.end.is_none_or(|end| now < end) {
            self.in_time += 1;
        }
    }

    /// A call that failed for a reason which is no outcome of its own.
    pub(super) fn fail(&mut self, why: &str, begin: Instant, now: Instant) {
        self.waited(begin, now);
        *self.errors.entry(why.to_owned()).or_default() += 1;
    }

    fn waited(&mut self, begin: Instant, now: Instant) {
        let latency_us = u64::try_from((now - begin).as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(latency_us);
    }

    /// `took` is the time of work that has no end of its own.
    pub(super) fn end(self, took: Duration) -> (Figures, BTreeMap<String, u64>) {
        let time = self.end.map_or(took, |end| end - self.start);
        let ms = |quantile: f64| {
            let latency_us = self.latency_us.value_at_quantile(quantile);
            millis(Duration::from_micros(latency_us))
        };
        let figures = Figures {
            seconds: time.as_secs_f64(),
            operations: self.operations,
            operations_per_s: per_second(self.in_time, time),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: ms(1.0),
            stall_ms: millis(self.gaps.longest(Instant::now())),
        };
        (figures, self.errors)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(super) fn word(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Refused(status) => format!("status {status}"),
        Outcome::Broken => "no answer".to_owned(),
        Outcome::Unreached => "no connection".to_owned(),
    }
}

/// A bar that grows while the clients work.
pub(super) async fn progress(context: &Context, seconds: u64) {
    let progress = context.output.progress(seconds, "measuring");
    for second in 0..seconds {
        progress.set_position(second);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    progress.finish_and_clear();
}

pub(super) fn show(
    context: &Context,
    work: String,
    clients: u32,
    figures: &Figures,
    errors: &BTreeMap<String, u64>,
) -> std::io::Result<()> {
    let cell = |ms: f64| format!("{ms:.2} ms");
    context.output.table(
        [
            "WORK", "CLIENTS", "OPS/S", "P50", "P99", "P99.9", "MAX", "STALL", "ERRORS",
        ],
        [[
            work,
            clients.to_string(),
            format!("{:.0}", figures.operations_per_s),
            cell(figures.p50_ms),
            cell(figures.p99_ms),
            cell(figures.p999_ms),
            cell(figures.max_ms),
            cell(figures.stall_ms),
            errors.values().sum::<u64>().to_string(),
        ]],
    )?;
    for (kind, count) in errors {
        context.output.line(format_args!("{count} × {kind}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_fails_late_is_among_the_latencies_and_no_operation() {
        let start = Instant::now();
        let mut tally = Tally::whole(start).unwrap();
        for _ in 0..98 {
            tally.note(Outcome::Done, start, start + Duration::from_millis(1));
        }
        for _ in 0..2 {
            tally.note(Outcome::Broken, start, start + Duration::from_secs(10));
        }
        let (figures, errors) = tally.end(Duration::from_secs(10));
        assert_eq!(figures.operations, 98);
        assert!(figures.p50_ms < 2.0 && figures.p99_ms > 9000.0, "{figures:?}");
        assert_eq!(errors, BTreeMap::from([("no answer".to_owned(), 2)]));
    }

    #[test]
    fn the_slowest_call_of_a_closed_loop_makes_its_rate_no_lower() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::closed(start, at(1000)).unwrap();
        for n in 0..10 {
            tally.note(Outcome::Done, at(100 * n), at(100 * n + 50));
        }
        tally.note(Outcome::Done, at(999), at(9000));
        let (figures, _) = tally.end(Duration::from_secs(9));
        assert_eq!((figures.seconds, figures.operations_per_s), (1.0, 10.0));
        assert_eq!(figures.operations, 11);
        assert!(figures.max_ms > 7990.0, "{figures:?}");
    }

    #[test]
    fn a_call_that_waited_for_an_hour_is_not_told_as_shorter() {
        let start = Instant::now();
        let mut tally = Tally::whole(start).unwrap();
        let hour = Duration::from_hours(1);
        tally.fail("too late", start, start + hour);
        let (figures, _) = tally.end(hour);
        assert!(figures.max_ms > 0.99 * millis(hour), "{figures:?}");
    }
}
