//! What the probe has seen since the page was last told: calls to draw, pauses, latencies, and the count.
//! Invariant: bounded, also when nobody takes anything away from it.
//! It must not know the page, nor who runs the probe.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::probe::{Call, Event, Gaps, Tally};

const CALLS_MAX: usize = 2000;
/// More writes than a store makes between two looks at it.
const LEAP: u64 = 1_000_000_000;
/// A pause of this length is drawn and named by itself.
const PAUSE_MIN: Duration = Duration::from_millis(60);
/// So long after a fault one knows what it did to the writes.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// Writes flow again when the last success is not longer ago than this.
const FLOWING: Duration = Duration::from_millis(100);

pub(super) struct Board {
    /// Times are told in milliseconds since then.
    epoch: Instant,
    calls: Vec<Drawn>,
    pauses: Vec<Pause>,
    latencies_us: Vec<u64>,
    gaps: Gaps,
    last_success: Option<Instant>,
    tally: Tally,
    /// When to tell what the last fault did.
    aftermath: Option<Instant>,
    longest_ms: f64,
    revision: u64,
    told_revision: Option<u64>,
}

/// When it began, how long it took, and whether it was a write that succeeded (0) or failed (1) or a read (2, 3).
type Drawn = (f64, f64, u8);

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Pause {
    from: f64,
    pub(super) ms: f64,
}

/// What the page is told ten times a second.
#[derive(Debug, Serialize)]
pub(super) struct Beat {
    now: f64,
    calls: Vec<Drawn>,
    pauses: Vec<Pause>,
    tally: Tally,
    longest_ms: f64,
    /// Since the last success; none before the first one.
    silent_ms: Option<f64>,
}

/// What the page is told once a second.
#[derive(Debug, Serialize)]
pub(super) struct Second {
    writes: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Board {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            calls: Vec::new(),
            pauses: Vec::new(),
            latencies_us: Vec::new(),
            gaps: Gaps::new(epoch),
            last_success: None,
            tally: Tally::default(),
            aftermath: None,
            longest_ms: 0.0,
            revision: 0,
            told_revision: None,
        }
    }

    fn at(&self, instant: Instant) -> f64 {
        tenths(instant.saturating_duration_since(self.epoch))
    }

    pub(super) fn note(&mut self, tally: &Tally, event: &Event) {
        self.tally.clone_from(tally);
        match event {
            Event::Write(call) => self.wrote(call),
            Event::Read(call) => self.draw(call, 2),
            Event::Checked { .. } => {}
        }
    }

    fn draw(&mut self, call: &Call, kind: u8) {
        if self.calls.len() < CALLS_MAX {
            let took = tenths(call.ended.saturating_duration_since(call.began));
            let kind = kind + u8::from(!call.succeeded);
            self.calls.push((self.at(call.began), took, kind));
        }
    }

    fn wrote(&mut self, call: &Call) {
        self.draw(call, 0);
        if !call.succeeded {
            return;
        }
        if self.latencies_us.len() < CALLS_MAX {
            let took = call.ended.saturating_duration_since(call.began).as_micros();
            self.latencies_us.push(u64::try_from(took).unwrap_or(u64::MAX));
        }
        if let Some(last) = self.last_success {
            let gap = call.ended.saturating_duration_since(last);
            if gap >= PAUSE_MIN {
                self.pause(last, gap);
            }
            self.gaps.success(call.ended);
        } else {
            self.gaps = Gaps::new(call.ended);
        }
        self.last_success = Some(call.ended);
    }

    fn pause(&mut self, from: Instant, gap: Duration) {
        let pause = Pause {
            from: self.at(from),
            ms: tenths(gap),
        };
        self.longest_ms = self.longest_ms.max(pause.ms);
        if self.pauses.len() < CALLS_MAX {
            self.pauses.push(pause);
        }
    }

    /// A process went at that time: what it did to the writes is told when it is over.
    pub(super) fn fault(&mut self, at: Instant) {
        if self.aftermath.is_none() {
            self.gaps.forget_before(at);
        }
        self.aftermath = Some(at + AFTERMATH);
    }

    /// The longest pause since the last fault, once writes flow again.
    pub(super) fn take_aftermath(&mut self, now: Instant) -> Option<(Duration, Tally)> {
        let over = self.aftermath.is_some_and(|end| now >= end);
        if !over || self.last_success.is_none() || self.gaps.open(now) > FLOWING {
            return None;
        }
        self.aftermath = None;
        let longest = self.gaps.longest(now);
        if longest < PAUSE_MIN {
            // Too short to have been drawn by itself, but after a fault it is what one looks for.
            self.pause(self.gaps.longest_began(), longest);
        }
        Some((longest, self.tally.clone()))
    }

    pub(super) fn take_beat(&mut self, now: Instant) -> Beat {
        Beat {
            now: self.at(now),
            calls: std::mem::take(&mut self.calls),
            pauses: std::mem::take(&mut self.pauses),
            tally: self.tally.clone(),
            longest_ms: self.longest_ms,
            silent_ms: self
                .last_success
                .map(|last| tenths(now.saturating_duration_since(last))),
        }
    }

    /// How far the store is; every revision is a write by somebody.
    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub(super) fn take_second(&mut self) -> Second {
        let writes = match self.told_revision.replace(self.revision) {
            // Before the first answer one does not know where the store stood.
            Some(0) | None => 0,
            // Nor when another cluster has begun meanwhile, from a backup.
            Some(told) => Some(self.revision.saturating_sub(told))
                .filter(|step| *step < LEAP)
                .unwrap_or(0),
        };
        let mut latencies = std::mem::take(&mut self.latencies_us);
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(index).map(|us| tenths(Duration::from_micros(*us)))
        };
        Second {
            writes,
            p50_ms: quantile(50),
            p99_ms: quantile(99),
        }
    }
}

/// Milliseconds with one digit behind the point, which is all that a person or a picture can use.
fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Play {
        start: Instant,
        board: Board,
        tally: Tally,
    }

    impl Play {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                start,
                board: Board::new(start),
                tally: Tally::default(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn write(&mut self, began: u64, ended: u64, succeeded: bool) {
            self.tally.acknowledged += u64::from(succeeded);
            let call = Call {
                began: self.at(began),
                ended: self.at(ended),
                succeeded,
            };
            self.board.note(&self.tally, &Event::Write(call));
        }
    }

    #[test]
    fn a_pause_is_drawn_where_it_was() {
        let mut play = Play::new();
        play.write(0, 5, true);
        play.write(10, 15, true);
        play.write(20, 200, false);
        play.write(30, 427, true);
        let beat = play.board.take_beat(play.at(430));
        assert_eq!(
            beat.calls,
            [(0.0, 5.0, 0), (10.0, 5.0, 0), (20.0, 180.0, 1), (30.0, 397.0, 0)]
        );
        assert_eq!(
            beat.pauses,
            [Pause {
                from: 15.0,
                ms: 412.0
            }]
        );
        assert_eq!((beat.longest_ms, beat.silent_ms), (412.0, Some(3.0)));
        assert!(play.board.take_beat(play.at(440)).calls.is_empty());
    }

    #[test]
    fn the_aftermath_of_a_fault_is_told_once_and_only_when_writes_flow_again() {
        let mut play = Play::new();
        play.write(0, 5, true);
        play.board.fault(play.at(10));
        play.write(10, 36, true);
        assert!(play.board.take_aftermath(play.at(1000)).is_none(), "too early");
        assert!(
            play.board.take_aftermath(play.at(2000)).is_none(),
            "writes do not flow"
        );
        play.write(2000, 2001, true);
        let (longest, tally) = play.board.take_aftermath(play.at(2010)).unwrap();
        assert_eq!((longest.as_millis(), tally.acknowledged), (1965, 3));
        assert!(play.board.take_aftermath(play.at(2010)).is_none());
    }

    #[test]
    fn a_second_tells_of_the_whole_store() {
        let mut play = Play::new();
        play.board.set_revision(100);
        assert_eq!(play.board.take_second().writes, 0);
        for latency in 1..=100 {
            play.write(0, latency, true);
        }
        play.board.set_revision(350);
        let second = play.board.take_second();
        assert_eq!(
            (second.writes, second.p50_ms, second.p99_ms),
            (250, Some(51.0), Some(100.0))
        );
        assert_eq!(play.board.take_second().p50_ms, None);
    }
}
