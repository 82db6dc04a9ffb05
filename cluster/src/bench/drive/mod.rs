//! The load generator of the comparison, in a process of its own: reads what to do from its input, does it, and
//! writes what it has seen to its output. The same loops and the same clock for every side; only `caller` differs.
//! Invariant: in an open loop a latency counts from the moment at which the call was to begin, so that a side that
//! stalls cannot hide the calls it kept waiting.

mod caller;
mod notes;
mod watchers;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::closed_loop::Figures;
use super::connection::Outcome;
use crate::arena::Usage;
use crate::context::{Context, block_on};
use caller::Caller;
use notes::Notes;

/// Connections are made and caches filled before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// In an open loop, how long after the end a call may still be made, and its answer counts.
const LATE_MAX: Duration = Duration::from_mins(1);
const ORDER_BYTES_MAX: u64 = 1 << 20;

/// Whom it is done to. Clients are spread over the endpoints: the first asks the first, and so does one who is alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    /// The store, or anything that speaks its HTTP.
    Store {
        endpoints: Vec<String>,
        token: String,
    },
    Etcd {
        endpoints: Vec<String>,
    },
}

impl Target {
    pub(super) fn endpoints_mut(&mut self) -> &mut [String] {
        match self {
            Self::Store { endpoints, .. } | Self::Etcd { endpoints } => endpoints,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Work {
    Put {
        bytes: usize,
    },
    /// Linearizable.
    Get,
    /// Nine gets to one put.
    Mix {
        bytes: usize,
    },
    /// All add to the same number.
    Counter,
    /// So many keys put at once.
    Txn {
        keys: u32,
        bytes: usize,
    },
    /// A page of so many rows.
    Range {
        rows: u32,
    },
    /// Each change of one key to so many watchers; a delivery is an operation.
    Watch {
        watchers: u32,
    },
    /// Puts all keys below `keys`, once.
    Fill {
        bytes: usize,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) target: Target,
    pub(super) work: Work,
    pub(super) clients: u32,
    pub(super) seconds: f64,
    /// Calls a second, all clients together; without it each begins the next when the last has ended.
    pub(super) rate: Option<u32>,
    /// The keys that are read and written.
    pub(super) keys: u32,
    /// Which of them, in which order, is drawn by this.
    pub(super) seed: u64,
}

/// What a generator has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) figures: Figures,
    /// With those that are not among the figures, since servers have worked for them too.
    pub(super) operations_in_all: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// Processor time of the generator itself, from its start.
    pub(super) generator_cpu_s: f64,
    /// How long it was at work, with the warm-up.
    pub(super) generator_s: f64,
}

#[derive(Args)]
pub(crate) struct Drive {}

impl Drive {
    #[expect(
        clippy::unused_self,
        reason = "every command is run by its arguments, also by none"
    )]
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut text = String::new();
        let input = std::io::stdin().take(ORDER_BYTES_MAX).read_to_string(&mut text);
        input.context("read the order")?;
        let order: Order = serde_json::from_str(&text).context("read the order")?;
        let begin = Instant::now();
        let mut seen = block_on(order.carry_out())?;
        seen.generator_s = begin.elapsed().as_secs_f64();
        seen.generator_cpu_s = Usage::of([std::process::id()]).cpu_s;
        Ok(context.output.json_line(&seen)?)
    }
}

impl Order {
    async fn carry_out(&self) -> anyhow::Result<Seen> {
        match self.work {
            Work::Watch { watchers } => watchers::watch(self, watchers).await,
            Work::Fill { .. } => self.fill().await,
            _ => self.load().await,
        }
    }

    async fn load(&self) -> anyhow::Result<Seen> {
        let callers = self.callers()?;
        let warm = Instant::now();
        let start = warm + WARM_UP;
        let end = start + Duration::from_secs_f64(self.seconds);
        let notes = if self.rate.is_some() {
            Notes::open(start, end + LATE_MAX)?
        } else {
            Notes::closed(start, end)?
        };
        let clients = (0..).zip(&callers).map(async |(number, caller)| {
            if let Some(rate) = self.rate {
                let schedule = Schedule::new(warm, rate, self.clients, number);
                open(async |n| caller.call(n).await, schedule, end, &notes).await;
            } else {
                closed(async |n| caller.call(n).await, end, &notes).await;
            }
        });
        join_all(clients).await;
        Ok(notes.end(start.elapsed()))
    }

    fn callers(&self) -> anyhow::Result<Vec<Caller>> {
        (0..self.clients)
            .map(|number| Caller::new(self, number))
            .collect()
    }

    /// Writes every key, many at once; what fails is written again.
    async fn fill(&self) -> anyhow::Result<Seen> {
        const AT_ONCE: u32 = 100;
        const TRIES_MAX: u32 = 50;
        let callers = self.callers()?;
        let start = Instant::now();
        let notes = Notes::whole(start)?;
        let next = Cell::new(0);
        let clients = callers.iter().map(async |caller| {
            while next.get() < self.keys {
                let from = next.replace(next.get() + AT_ONCE);
                let mut tries = 0;
                loop {
                    let begin = Instant::now();
                    let outcome = caller.fill(from, AT_ONCE.min(self.keys - from)).await;
                    notes.note(outcome, begin, Instant::now());
                    if outcome == Outcome::Done {
                        break;
                    }
                    tries += 1;
                    ensure!(tries < TRIES_MAX, "keys cannot be filled in: {outcome:?}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
            Ok(())
        });
        for filled in join_all(clients).await {
            filled?;
        }
        Ok(notes.end(start.elapsed()))
    }
}

/// No call begins after the end, but the last ones are waited for, and their latencies count: or a stall across the
/// end, the longest of all, would be in no figure. They are not of the rate, nor is the time that they take: a side
/// whose calls are long would look slower than it is, the more so the shorter the round.
async fn closed(call: impl AsyncFn(u32) -> Outcome, end: Instant, notes: &Notes) {
    for n in 0.. {
        let begin = Instant::now();
        if begin >= end {
            return;
        }
        let outcome = call(n).await;
        notes.note(outcome, begin, Instant::now());
        pause_after_error(outcome).await;
    }
}

/// When the calls of one client are to begin.
struct Schedule {
    first: Instant,
    every: Duration,
}

impl Schedule {
    /// Clients take turns.
    fn new(warm: Instant, rate: u32, clients: u32, number: u32) -> Self {
        let between = Duration::from_secs(1) / rate.max(1);
        Self {
            first: warm + between * number,
            every: between * clients,
        }
    }

    fn at(&self, n: u32) -> Instant {
        self.first + self.every * n
    }
}

async fn open(call: impl AsyncFn(u32) -> Outcome, schedule: Schedule, end: Instant, notes: &Notes) {
    for n in 0.. {
        let intended = schedule.at(n);
        if intended >= end {
            return;
        }
        // One that is late begins at once, and its lateness counts.
        tokio::time::sleep_until(intended.into()).await;
        let now = Instant::now();
        if notes.is_too_late(now) {
            notes.note_too_late(intended, now);
            continue;
        }
        let outcome = call(n).await;
        notes.note(outcome, intended, Instant::now());
        pause_after_error(outcome).await;
    }
}

async fn pause_after_error(outcome: Outcome) {
    if outcome != Outcome::Done {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

#[cfg(test)]
mod tests {
    use super::notes::TOO_LATE;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_stall_across_the_end_is_seen() {
        let start = Instant::now();
        let (end, answered) = (start + SECOND, start + 2 * SECOND);
        let notes = Notes::closed(start, end).unwrap();
        let stalled = async |_| {
            tokio::time::sleep_until(answered.into()).await;
            Outcome::Done
        };
        closed(stalled, end, &notes).await;
        let seen = notes.end(start.elapsed());
        assert_eq!(seen.figures.operations, 1);
        assert!(seen.figures.max_ms > 900.0, "{seen:?}");
        assert!(seen.figures.operations_per_s < 0.5, "{seen:?}");
    }

    #[tokio::test]
    async fn no_call_is_made_when_its_answer_would_come_too_late() {
        let start = Instant::now();
        let (end, until) = (start + SECOND / 10, start + SECOND / 5);
        let notes = Notes::open(start, until).unwrap();
        let made = Cell::new(0);
        let stalls = async |_| {
            made.update(|made| made + 1);
            tokio::time::sleep_until((until + SECOND / 100).into()).await;
            Outcome::Done
        };
        // One client, of which ten calls are wanted.
        open(stalls, Schedule::new(start, 100, 1, 0), end, &notes).await;
        let seen = notes.end(start.elapsed());
        assert_eq!((made.get(), seen.figures.operations), (1, 0));
        assert_eq!(seen.errors, BTreeMap::from([(TOO_LATE.to_owned(), 10)]));
        assert!(seen.figures.p50_ms > 100.0, "{seen:?}");
    }

    #[test]
    fn clients_take_turns_at_the_rate() {
        let start = Instant::now();
        let mut all: Vec<Duration> = Vec::new();
        for number in 0..4 {
            let schedule = Schedule::new(start, 100, 4, number);
            all.extend((0..25).map(|n| schedule.at(n) - start));
        }
        all.sort();
        assert_eq!(all.len(), 100);
        assert!(
            all.windows(2)
                .all(|pair| pair[1] == pair[0] + Duration::from_millis(10))
        );
    }
}
