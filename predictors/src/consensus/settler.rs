//! Outcomes: the one task of a process that settles rounds, as many as have come in one transaction.
//! Invariant: whoever reports an outcome is answered by the batch that it was in, in the order in which reports came.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use service::problem::{self, Problem, Result};
use service::tasks::Tasks;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::batch::rounds_at_once;
use super::network::Bank;
use super::once::Reply;
use super::rounds::checked_id;
use crate::wire::Shape;

/// Reports that wait; beyond it they are refused.
const QUEUE: usize = 4096;

/// A round and what was true of it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) round: String,
    pub(crate) outcome: usize,
}

struct Job {
    report: Report,
    reply: oneshot::Sender<Result<Reply>>,
}

/// Takes reports; whoever drops the future after sending may still have settled.
#[derive(Clone, Debug)]
pub(crate) struct Settler(mpsc::Sender<Job>);

impl Settler {
    /// Starts the task, which ends when it is told to and has answered what it had taken.
    pub(crate) fn start(bank: Bank, shape: Shape, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stop = tasks.clone();
        tasks.spawn("settler", async move { run(bank, shape, receiver, stop).await });
        Self(sender)
    }

    pub(crate) async fn settle(&self, report: Report) -> Result<Reply> {
        checked_id(&report.round)?;
        let (reply, answer) = oneshot::channel();
        self.0
            .try_send(Job { report, reply })
            .map_err(|refused| match refused {
                TrySendError::Full(_) => {
                    let detail = "More outcomes wait to be settled than may. Nothing was done.";
                    Problem::new(problem::OVERLOADED, detail)
                }
                TrySendError::Closed(_) => gone(),
            })?;
        let dropped = |_| {
            let detail = "This process is stopping. Report the outcome again: a round is settled once.";
            Problem::new(problem::OUTCOME_UNKNOWN, detail)
        };
        answer.await.map_err(dropped)?
    }

    /// Whether rounds can be settled here, as long as the process is not about to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.is_closed() { Err(gone()) } else { Ok(()) }
    }
}

fn gone() -> Problem {
    let detail = "This process is about to end and settles no more rounds. Nothing was done.";
    Problem::new(problem::NOT_READY, detail)
}

/// For a fault of the program, which costs one batch and no more.
fn failed() -> Problem {
    tracing::error!("settling a batch of rounds ended by a panic");
    let detail = "This process failed while it settled. Report the outcome again: a round is settled once.";
    Problem::new(problem::OUTCOME_UNKNOWN, detail)
}

async fn run(bank: Bank, shape: Shape, mut receiver: mpsc::Receiver<Job>, stop: Tasks) {
    let batch_max = rounds_at_once(bank.ops_max, bank.config.models_max);
    let mut jobs = Vec::with_capacity(batch_max);
    loop {
        // Those that did not fit come first.
        if jobs.is_empty() {
            let came = tokio::select! {
                biased;
                came = receiver.recv_many(&mut jobs, batch_max) => came,
                () = stop.stopping() => return,
            };
            if came == 0 {
                return;
            }
        }
        let reports: Vec<Report> = jobs.iter().map(|job| job.report.clone()).collect();
        let settled = AssertUnwindSafe(bank.settle(&shape, &reports)).catch_unwind();
        match settled.await.unwrap_or_else(|_panic| Err(failed())) {
            Ok(replies) => {
                for (job, reply) in jobs.drain(..replies.len()).zip(replies) {
                    // Nobody listening is no fault: the receipt is stored.
                    let _sent = job.reply.send(reply);
                }
            }
            Err(problem) => {
                for job in jobs.drain(..) {
                    let _sent = job.reply.send(Err(problem.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_told_from_a_settler_that_has_gone() {
        let (sender, receiver) = mpsc::channel(1);
        let settler = Settler(sender);
        let report = || Report {
            round: "0".repeat(32),
            outcome: 0,
        };
        let (reply, _answer) = oneshot::channel();
        let job = Job {
            report: report(),
            reply,
        };
        settler.0.try_send(job).unwrap();
        let full = settler.settle(report()).await.unwrap_err();
        assert_eq!(full.kind, problem::OVERLOADED);
        assert!(settler.check().is_ok());
        drop(receiver);
        let gone = settler.settle(report()).await.unwrap_err();
        assert_eq!(gone.kind, problem::NOT_READY);
        assert!(settler.check().is_err());
    }
}
