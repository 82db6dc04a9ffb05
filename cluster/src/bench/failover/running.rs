//! `menagerie bench failover --running`: the same on the cluster that is running, through its supervisor.
//! Invariant: the clock starts before the fault is caused, and every fault is healed before the next, the last one also
//! when the run fails or is interrupted.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use futures_util::future::join_all;
use hyper::{Method, Uri};

use super::{Fault, How, NOBODY, Report, SETTLE, Seen, TRY_DEADLINE, WINDOW, WRITERS, writes_flow};
use crate::bench::Target;
use crate::bench::connection::{Connection, Outcome, uri};
use crate::context::{Context, until_interrupted};
use crate::kv::reach::Nodes;
use crate::launcher::control::{self, Answer, Request};
use crate::launcher::place::Place;
use crate::launcher::{Action, Harm, act};

/// Each writer writes so often; fine enough to see a gap of a few milliseconds.
const PACE: Duration = Duration::from_millis(2);
const HEALTHY_DEADLINE: Duration = Duration::from_mins(1);

fn action(how: How) -> anyhow::Result<Action> {
    Ok(match how {
        How::Kill => Action::Kill,
        How::Term => Action::Term,
        How::Pause => Action::Pause,
        How::Cut => bail!("the network of a cluster that is running cannot be cut; leave out --running"),
    })
}

/// The faults to cause, and which nodes are asked, as whom.
pub(super) struct Running<'a> {
    pub(super) kills: u32,
    pub(super) how: How,
    pub(super) nodes: &'a Nodes,
}

impl Running<'_> {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let harm = Harm::default();
        let ran = until_interrupted(context.output, Box::pin(self.measure(context, &harm))).await;
        harm.put_right(context).await;
        ran
    }

    async fn measure(self, context: &Context, harm: &Harm) -> anyhow::Result<()> {
        let target = Target::find(context, self.nodes)?;
        let seen = RefCell::new(Seen::new());
        let writers = (0..WRITERS)
            .map(|number| Writer::new(&target, number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let faults = async {
            let faults = self.faults(context, &seen, harm).await;
            seen.borrow_mut().stop = true;
            faults
        };
        let (faults, _) = tokio::join!(faults, join_all(writers.iter().map(|writer| writer.run(&seen))));
        let report = Report::of(self.how, faults?, seen.into_inner().successes);
        if context.output.json {
            return Ok(context.output.document(&report)?);
        }
        context.output.table(
            ["LEADER", "NO WRITES FOR", "FAILED TRIES", "UNREACHED"],
            report.faults.iter().map(|fault| {
                [
                    fault.leader.clone(),
                    format!(
                        "{}{:.1} ms",
                        if fault.recovered { "" } else { "over " },
                        fault.gap_ms
                    ),
                    fault.failures.failed_tries.to_string(),
                    fault.failures.unreached_tries.to_string(),
                ]
            }),
        )?;
        context.output.line(format_args!(
            "median {:.1} ms, longest {:.1} ms, {} writes",
            report.median_ms, report.max_ms, report.writes
        ))?;
        Ok(())
    }

    async fn faults(
        &self,
        context: &Context,
        seen: &RefCell<Seen>,
        harm: &Harm,
    ) -> anyhow::Result<Vec<Fault>> {
        let progress = context.output.progress(u64::from(self.kills), "faults");
        let mut faults = Vec::new();
        let mut leader = settled(context, seen).await?;
        seen.borrow_mut().begin();
        for _ in 0..self.kills {
            seen.borrow_mut().gaps.forget();
            let end = Instant::now() + WINDOW;
            harm.cause(context, action(self.how)?, &leader).await?;
            tokio::time::sleep_until(end.into()).await;
            // A gap is measured to its end, however long that takes.
            let recovered = writes_flow(seen).await;
            let fault = seen.borrow_mut().fault(leader.clone(), recovered);
            harm.heal(context).await?;
            leader = settled(context, seen).await?;
            faults.push(seen.borrow_mut().well_again(fault));
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(faults)
    }
}

/// Waits until all is well, and for a moment more; answers who leads. An outage that is still open then belongs to the
/// fault before, not to the next one.
async fn settled(context: &Context, seen: &RefCell<Seen>) -> anyhow::Result<String> {
    let leader = healthy(context).await?;
    tokio::time::sleep(SETTLE).await;
    if !writes_flow(seen).await {
        bail!(NOBODY);
    }
    Ok(leader)
}

/// Waits until all nodes are ready and one leads; answers which.
async fn healthy(context: &Context) -> anyhow::Result<String> {
    let deadline = Instant::now() + HEALTHY_DEADLINE;
    loop {
        let answer = control::ask(&Place::new(&context.data), &Request::Status).await?;
        let Some(Answer::Status(status)) = answer else {
            bail!(act::nobody(context))
        };
        let lack = status.lack_of_store();
        if let (None, Some(leader)) = (&lack, status.leader) {
            return Ok(leader);
        }
        if Instant::now() > deadline {
            bail!(
                "the store is not whole after {} s: {}",
                HEALTHY_DEADLINE.as_secs(),
                lack.unwrap_or_default()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Writer {
    connection: Connection,
    urls: Vec<Uri>,
    first: usize,
}

impl Writer {
    fn new(target: &Target, number: usize) -> anyhow::Result<Self> {
        let url = |endpoint: &String| {
            uri(&format!(
                "{}/v1/kv/bench/failover/{number}",
                service::http::base(endpoint)
            ))
        };
        let urls = target.endpoints.iter().map(url).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            connection: Connection::new(&target.token, TRY_DEADLINE)?,
            urls,
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
                seen.borrow_mut().failures.count(outcome);
                node += 1;
                // A node that is down refuses in microseconds; this keeps the hopping from being a busy loop.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }
}
