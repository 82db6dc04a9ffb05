//! `menagerie bench failover`: takes the leader away again and again, and measures how long nobody could write.
//! Invariant: the clock starts before the fault is caused, and every fault is healed before the next.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::future::join_all;
use reqwest::{Method, Url};
use serde::Serialize;

use super::Target;
use super::closed_loop::millis;
use super::connection::{Connection, Outcome};
use crate::context::Context;
use crate::kv::reach::Reach;
use crate::launcher::control::{self, Answer, Request};
use crate::launcher::place::Place;
use crate::launcher::{Action, act};
use crate::probe::Gaps;

const WRITERS: usize = 8;
/// Each writer writes so often; fine enough to see a gap of a few milliseconds.
const PACE: Duration = Duration::from_millis(2);
const TRY_DEADLINE: Duration = Duration::from_millis(250);
/// How long after a fault one watches for its gap.
const WINDOW: Duration = Duration::from_secs(2);
/// Eight writers at their pace succeed far more often than this when nothing is wrong.
const FLOWING: Duration = Duration::from_millis(100);
const RECOVERY_DEADLINE: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_millis(500);
const HEALTHY_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Args)]
pub(crate) struct Failover {
    /// How many times
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// What happens to the leader
    #[arg(long, value_enum, default_value_t = How::Kill)]
    how: How,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Kill,
    Term,
    Pause,
}

impl How {
    fn harm(self) -> Action {
        match self {
            Self::Kill => Action::Kill,
            Self::Term => Action::Term,
            Self::Pause => Action::Pause,
        }
    }

    fn heal(self) -> Action {
        match self {
            Self::Kill | Self::Term => Action::Start,
            Self::Pause => Action::Resume,
        }
    }
}

/// What the writers have seen; they run on one thread.
struct Seen {
    gaps: Gaps,
    successes: u64,
    /// Tries that ended badly; each was tried again on another node.
    failures: u64,
    stop: bool,
}

#[derive(Serialize)]
struct Fault {
    leader: String,
    gap_ms: f64,
    /// False: nobody could write until the fault was healed, and the gap is only what was waited for.
    recovered: bool,
    failed_tries: u64,
}

#[derive(Serialize)]
struct Report {
    how: How,
    median_ms: f64,
    max_ms: f64,
    writes: u64,
    faults: Vec<Fault>,
}

impl Failover {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let target = Target::find(context, &self.reach)?;
        let seen = RefCell::new(Seen {
            gaps: Gaps::new(Instant::now()),
            successes: 0,
            failures: 0,
            stop: false,
        });
        let writers = (0..WRITERS)
            .map(|number| Writer::new(&target, number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let faults = async {
            let faults = self.faults(context, &seen).await;
            seen.borrow_mut().stop = true;
            faults
        };
        let (faults, _) = tokio::join!(faults, join_all(writers.iter().map(|writer| writer.run(&seen))));
        let report = self.report(faults?, seen.into_inner().successes);
        if context.output.json {
            return Ok(context.output.document(&report)?);
        }
        context.output.table(
            ["LEADER", "NO WRITES FOR", "FAILED TRIES"],
            report.faults.iter().map(|fault| {
                [
                    fault.leader.clone(),
                    format!(
                        "{}{:.1} ms",
                        if fault.recovered { "" } else { "over " },
                        fault.gap_ms
                    ),
                    fault.failed_tries.to_string(),
                ]
            }),
        )?;
        context.output.line(format_args!(
            "median {:.1} ms, longest {:.1} ms, {} writes",
            report.median_ms, report.max_ms, report.writes
        ))?;
        Ok(())
    }

    async fn faults(&self, context: &Context, seen: &RefCell<Seen>) -> anyhow::Result<Vec<Fault>> {
        let progress = context.output.progress(u64::from(self.kills), "faults");
        let mut faults = Vec::new();
        for _ in 0..self.kills {
            let leader = healthy(context).await?;
            tokio::time::sleep(SETTLE).await;
            // An outage that is still open belongs to the fault before, not to the next one.
            if !writes_flow(seen).await {
                bail!("nobody can write although all nodes say that they are ready");
            }
            let failures = {
                let mut seen = seen.borrow_mut();
                seen.gaps.forget();
                seen.failures
            };
            let end = Instant::now() + WINDOW;
            act::act(context, self.how.harm(), &leader).await?;
            tokio::time::sleep_until(end.into()).await;
            // A gap is measured to its end, however long that takes.
            let recovered = writes_flow(seen).await;
            let fault = {
                let seen = seen.borrow();
                let gap_ms = millis(seen.gaps.longest(Instant::now()));
                Fault {
                    leader: leader.clone(),
                    gap_ms,
                    recovered,
                    failed_tries: seen.failures - failures,
                }
            };
            faults.push(fault);
            act::act(context, self.how.heal(), &leader).await?;
            progress.inc(1);
        }
        healthy(context).await?;
        progress.finish_and_clear();
        Ok(faults)
    }

    fn report(&self, faults: Vec<Fault>, writes: u64) -> Report {
        let mut gaps: Vec<f64> = faults.iter().map(|fault| fault.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        Report {
            how: self.how,
            median_ms: gaps.get(gaps.len() / 2).copied().unwrap_or_default(),
            max_ms: gaps.last().copied().unwrap_or_default(),
            writes,
            faults,
        }
    }
}

/// Waits until all processes are ready and one leads; answers which.
async fn healthy(context: &Context) -> anyhow::Result<String> {
    let deadline = Instant::now() + HEALTHY_DEADLINE;
    loop {
        let answer = control::ask(&Place::new(&context.data).control(), &Request::Status).await?;
        let Some(Answer::Status(status)) = answer else {
            bail!(act::nobody(context))
        };
        if status.all_run()
            && let Some(leader) = status.leader
        {
            return Ok(leader);
        }
        if Instant::now() > deadline {
            bail!(
                "the cluster is not healthy after {} s: {:?}",
                HEALTHY_DEADLINE.as_secs(),
                status.processes
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until writes succeed again; false when they do not.
async fn writes_flow(seen: &RefCell<Seen>) -> bool {
    let deadline = Instant::now() + RECOVERY_DEADLINE;
    while seen.borrow().gaps.open(Instant::now()) > FLOWING {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

struct Writer {
    connection: Connection,
    urls: Vec<Url>,
    first: usize,
}

impl Writer {
    fn new(target: &Target, number: usize) -> anyhow::Result<Self> {
        let url = |endpoint: &String| {
            Url::parse(&format!(
                "{}/v1/kv/bench/failover/{number}",
                service::http::base(endpoint)
            ))
        };
        let urls: Result<Vec<_>, _> = target.endpoints.iter().map(url).collect();
        Ok(Self {
            connection: Connection::new(&target.token, TRY_DEADLINE)?,
            urls: urls.context("make a URL")?,
            first: number,
        })
    }

    /// Writes at its pace; after a failed try it goes to the next node at once.
    async fn run(&self, seen: &RefCell<Seen>) {
        let mut node = self.first;
        while !seen.borrow().stop {
            let next = Instant::now() + PACE;
            let url = self.urls[node % self.urls.len()].clone();
            let outcome = self
                .connection
                .send(Method::PUT, url, Some(Bytes::from_static(b"x")), None)
                .await;
            if outcome == Outcome::Done {
                let mut seen = seen.borrow_mut();
                seen.gaps.success(Instant::now());
                seen.successes += 1;
            } else {
                seen.borrow_mut().failures += 1;
                node += 1;
                // A node that is down refuses in microseconds; this keeps the hopping from being a busy loop.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }
}
