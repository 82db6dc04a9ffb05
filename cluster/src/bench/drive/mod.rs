//! The load generator of the comparison, in a process of its own: reads what to do from its input, does it, and
//! writes what it has seen to its output. The same loops and the same clock for every side; only `caller` differs.
//! Invariant: in an open loop a latency counts from the moment at which the call was to begin, so that a side that
//! stalls cannot hide the calls it kept waiting.

mod caller;
mod watchers;

use std::cell::RefCell;
use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::closed_loop::{Figures, Tally};
use super::connection::Outcome;
use crate::arena::Usage;
use crate::context::{Context, block_on};
use caller::Caller;

/// Connections are made and caches filled before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// After an error, so that a refused connection is not a busy loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
const ORDER_BYTES_MAX: u64 = 1 << 20;

/// Whom it is done to.
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
}

/// What a generator has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) figures: Figures,
    pub(super) errors: std::collections::BTreeMap<String, u64>,
    /// Of the generator itself, from its start.
    pub(super) generator_cpu_s: f64,
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
        let (figures, errors) = block_on(order.carry_out())?;
        let generator_cpu_s = Usage::of([std::process::id()]).cpu_s;
        let seen = Seen {
            figures,
            errors,
            generator_cpu_s,
        };
        Ok(context.output.json_line(&seen)?)
    }
}

type Ended = (Figures, std::collections::BTreeMap<String, u64>);

impl Order {
    async fn carry_out(&self) -> anyhow::Result<Ended> {
        match self.work {
            Work::Watch { watchers } => watchers::watch(self, watchers).await,
            Work::Fill { .. } => self.fill().await,
            _ => self.load().await,
        }
    }

    async fn load(&self) -> anyhow::Result<Ended> {
        let callers = self.callers()?;
        let warm = Instant::now();
        let start = warm + WARM_UP;
        let end = start + Duration::from_secs_f64(self.seconds);
        let tally = RefCell::new(Tally::new(start)?);
        let clients = (0..).zip(&callers).map(async |(number, caller)| {
            if let Some(rate) = self.rate {
                let schedule = Schedule::new(warm, rate, self.clients, number);
                open(caller, schedule, start, end, &tally).await;
            } else {
                closed(caller, start, end, &tally).await;
            }
        });
        join_all(clients).await;
        Ok(tally.into_inner().end(start.elapsed()))
    }

    fn callers(&self) -> anyhow::Result<Vec<Caller>> {
        (0..self.clients)
            .map(|number| Caller::new(self, number))
            .collect()
    }

    /// Writes every key, many at once; what fails is written again.
    async fn fill(&self) -> anyhow::Result<Ended> {
        const AT_ONCE: u32 = 100;
        const TRIES_MAX: u32 = 50;
        let callers = self.callers()?;
        let start = Instant::now();
        let tally = RefCell::new(Tally::new(start)?);
        let next = std::cell::Cell::new(0);
        let clients = callers.iter().map(async |caller| {
            while next.get() < self.keys {
                let from = next.replace(next.get() + AT_ONCE);
                let mut tries = 0;
                loop {
                    let begin = Instant::now();
                    let outcome = caller.fill(from, AT_ONCE.min(self.keys - from)).await;
                    tally.borrow_mut().note(outcome, begin, Instant::now());
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
        Ok(tally.into_inner().end(start.elapsed()))
    }
}

async fn closed(caller: &Caller, start: Instant, end: Instant, tally: &RefCell<Tally>) {
    for n in 0.. {
        let begin = Instant::now();
        if begin >= end {
            return;
        }
        let outcome = caller.call(n).await;
        note(tally, outcome, begin, start, end).await;
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

async fn open(caller: &Caller, schedule: Schedule, start: Instant, end: Instant, tally: &RefCell<Tally>) {
    for n in 0.. {
        let intended = schedule.at(n);
        if intended >= end {
            return;
        }
        // One that is late begins at once, and its lateness counts.
        tokio::time::sleep_until(intended.into()).await;
        let outcome = caller.call(n).await;
        note(tally, outcome, intended, start, end + Duration::from_mins(1)).await;
    }
}

/// What began before the warm-up was over, or was answered after the end, does not count.
async fn note(tally: &RefCell<Tally>, outcome: Outcome, begin: Instant, start: Instant, end: Instant) {
    let now = Instant::now();
    if begin >= start && (outcome != Outcome::Done || now <= end) {
        tally.borrow_mut().note(outcome, begin, now);
    }
    if outcome != Outcome::Done {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
