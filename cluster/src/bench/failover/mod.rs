//! `menagerie bench failover`: takes the leader away again and again, in each way there is, and measures how long
//! nobody could write; the same is done to etcd. `--running` does it to the cluster that is running.
//! Invariant: the clock starts before the fault is caused, and every fault is healed before the next.

mod arena;
mod comparison;
mod goals;
mod running;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::closed_loop::millis;
use super::connection::Outcome;
use crate::context::{Context, until_interrupted};
use crate::kv::reach::Nodes;
use crate::probe::Gaps;

const WRITERS: usize = 8;
const TRY_DEADLINE: Duration = Duration::from_millis(250);
/// How long after a fault one watches for its gap.
const WINDOW: Duration = Duration::from_secs(2);
/// The writers at their pace succeed far more often than this when nothing is wrong.
const FLOWING: Duration = Duration::from_millis(100);
const RECOVERY_DEADLINE: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_millis(500);
const NOBODY: &str = "nobody can write although all nodes say that they are ready";

#[derive(Args)]
pub(crate) struct Failover {
    /// How many times, of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// What happens to the leader; what cannot be done here is an error [default: everything that can be]
    #[arg(long, value_enum, value_delimiter = ',')]
    how: Vec<How>,
    /// Do it to the cluster that is running, and to nothing else
    #[arg(long)]
    pub(super) running: bool,
    /// Leave etcd out
    #[arg(long, conflicts_with = "running")]
    without_etcd: bool,
    /// Where failover.json and failover.svg go
    #[arg(
        long,
        default_value = "bench-report",
        value_name = "DIR",
        conflicts_with = "running"
    )]
    out: PathBuf,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    /// kill -9
    Kill,
    /// SIGTERM: it may hand over first
    Term,
    /// SIGSTOP
    Pause,
    /// Nothing reaches it, and nothing it says reaches anybody
    Cut,
}

const EVERYTHING: [How; 4] = [How::Kill, How::Term, How::Pause, How::Cut];

impl Failover {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if self.running {
            let how = self.how.first().copied().unwrap_or(How::Kill);
            let running = running::Running {
                kills: self.kills,
                how,
                nodes: &self.nodes,
            };
            return running.run(context).await;
        }
        until_interrupted(context.output, self.compare(context)).await
    }

    async fn compare(self, context: &Context) -> anyhow::Result<()> {
        let comparison = Box::pin(arena::run(context, self.kills, &self.how, !self.without_etcd)).await?;
        comparison.write(&self.out)?;
        comparison.show(context, &self.out)
    }
}

/// Tries that ended badly; each was tried again on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Failures {
    /// A node had the request, and gave no good answer.
    failed_tries: u64,
    /// The node took no connection, and so nothing was sent.
    unreached_tries: u64,
}

impl Failures {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => {}
            Outcome::Unreached => self.unreached_tries += 1,
            Outcome::Refused(_) | Outcome::Broken => self.failed_tries += 1,
        }
    }

    fn and(self, more: Self) -> Self {
        Self {
            failed_tries: self.failed_tries + more.failed_tries,
            unreached_tries: self.unreached_tries + more.unreached_tries,
        }
    }
}

/// What the writers have seen; they run on one thread.
struct Seen {
    gaps: Gaps,
    successes: u64,
    /// Those that no fault has told yet.
    failures: Failures,
    stop: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Fault {
    leader: String,
    gap_ms: f64,
    /// False: nobody could write until the fault was healed, and the gap is only what was waited for.
    recovered: bool,
    /// The longest gap while who was away came back; `None` where the first one had not ended by then.
    gap_after_heal_ms: Option<f64>,
    /// From the fault until all was well again, so also while who was away came back.
    #[serde(flatten)]
    failures: Failures,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    how: How,
    min_ms: f64,
    median_ms: f64,
    p90_ms: f64,
    max_ms: f64,
    /// The longest gap while those that were away came back.
    max_after_heal_ms: Option<f64>,
    #[serde(flatten)]
    failures: Failures,
    writes: u64,
    faults: Vec<Fault>,
}

impl Seen {
    fn new() -> Self {
        Self {
            gaps: Gaps::new(Instant::now()),
            successes: 0,
            failures: Failures::default(),
            stop: false,
        }
    }

    /// What failed before anything was done to anybody is of no fault.
    fn begin(&mut self) {
        self.failures = Failures::default();
    }

    /// What a fault did before it is healed. Who comes back may be in the way once more: `well_again` tells that too.
    fn fault(&mut self, leader: String, recovered: bool) -> Fault {
        let gap_ms = self.longest_ms();
        self.gaps.forget();
        Fault {
            leader,
            gap_ms,
            recovered,
            gap_after_heal_ms: None,
            failures: Failures::default(),
        }
    }

    /// The same fault, once all is well. No failure is left out: what fails from here on is told by the next one.
    fn well_again(&mut self, fault: Fault) -> Fault {
        Fault {
            // One that had not ended by then is of the fault.
            gap_after_heal_ms: fault.recovered.then(|| self.longest_ms()),
            failures: std::mem::take(&mut self.failures),
            ..fault
        }
    }

    fn longest_ms(&self) -> f64 {
        millis(self.gaps.longest(Instant::now()))
    }
}

impl Report {
    fn of(how: How, faults: Vec<Fault>, writes: u64) -> Self {
        let mut gaps: Vec<f64> = faults.iter().map(|fault| fault.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        let at = |tenths: usize| {
            gaps.get(gaps.len() * tenths / 10)
                .or(gaps.last())
                .copied()
                .unwrap_or_default()
        };
        Self {
            how,
            min_ms: at(0),
            median_ms: at(5),
            p90_ms: at(9),
            max_ms: at(10),
            max_after_heal_ms: faults
                .iter()
                .filter_map(|fault| fault.gap_after_heal_ms)
                .reduce(f64::max),
            failures: faults
                .iter()
                .map(|fault| fault.failures)
                .fold(Failures::default(), Failures::and),
            writes,
            faults,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_while_who_was_away_comes_back_is_of_the_fault() {
        let mut seen = Seen::new();
        seen.failures.count(Outcome::Broken);
        seen.begin();
        seen.failures.count(Outcome::Unreached);
        let fault = seen.fault("n1".to_owned(), true);
        seen.failures.count(Outcome::Refused(503));
        seen.failures.count(Outcome::Broken);
        let told = |fault: &Fault| (fault.failures.failed_tries, fault.failures.unreached_tries);
        let fault = seen.well_again(fault);
        assert_eq!(told(&fault), (2, 1));
        assert!(fault.gap_after_heal_ms.is_some());
        // Each is told once.
        seen.failures.count(Outcome::Broken);
        let unhealed = seen.fault("n2".to_owned(), false);
        let unhealed = seen.well_again(unhealed);
        assert_eq!(told(&unhealed), (1, 0));
        assert_eq!(unhealed.gap_after_heal_ms, None);
    }

    #[test]
    fn the_gaps_are_ordered() {
        let fault = |gap_ms| Fault {
            leader: "n1".to_owned(),
            gap_ms,
            recovered: true,
            gap_after_heal_ms: (gap_ms > 2.0).then_some(gap_ms / 2.0),
            failures: Failures {
                failed_tries: 1,
                unreached_tries: 2,
            },
        };
        let report = Report::of(How::Kill, [5.0, 1.0, 3.0].map(fault).to_vec(), 9);
        assert_eq!((report.min_ms, report.median_ms, report.max_ms), (1.0, 3.0, 5.0));
        assert_eq!(report.max_after_heal_ms, Some(2.5));
        assert_eq!(
            (report.failures.failed_tries, report.failures.unreached_tries),
            (3, 6)
        );
    }
}
