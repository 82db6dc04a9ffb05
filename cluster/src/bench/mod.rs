//! `menagerie bench`: measures from outside, as clients see it: with etcd beside it on servers of its own, or, with
//! one of the words below, the cluster that is running.
//! Invariant: the generator runs on one thread and does as little as it can a request,
//! since on a small machine whatever it burns is missing to what it measures.

mod cards;
mod chart;
mod closed_loop;
mod compare;
mod connection;
mod drive;
mod failover;
mod goal;
mod kv;
mod middle;
mod pay;
mod predict;
mod redundancy;
mod shop;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::context::{Context, block_on, until_interrupted};
use crate::kv::reach::Nodes;

pub(crate) use cards::open_cards;
pub(crate) use connection::{Connection, Outcome, uri};
pub(crate) use shop::Keeper;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(flatten)]
    compare: compare::Compare,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Throughput and latency of the store under a closed loop of clients
    Kv(kv::Load),
    /// Throughput and latency of payments under a closed loop of clients
    Pay(pay::Load),
    /// Throughput and latency of the pet shop under a closed loop of clients: reads, or checkouts with payment
    Shop(shop::Load),
    /// Throughput and latency of one model, of the consensus, or of settling rounds
    Predict(predict::Load),
    /// How long nobody can write after the leader was killed, stopped or paused
    Failover(failover::Failover),
    /// The load generator of the comparison: reads an order, writes what it has seen
    #[command(hide = true)]
    Drive(drive::Drive),
    /// The server that does nothing, as the ceiling of all that speak HTTP
    #[command(hide = true)]
    NoOp(compare::NoOp),
    /// What each kind of redundancy costs and saves: starts clusters of its own and takes their disks away
    Redundancy(redundancy::Redundancy),
}

impl Bench {
    /// Whether it measures the running cluster, and not servers of its own.
    pub(crate) fn asks_what_runs(&self) -> bool {
        match &self.what {
            None | Some(What::Drive(_) | What::NoOp(_) | What::Redundancy(_)) => false,
            Some(What::Failover(failover)) => failover.running,
            Some(What::Kv(_) | What::Pay(_) | What::Shop(_) | What::Predict(_)) => true,
        }
    }

    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let Some(what) = self.what else {
            return block_on(until_interrupted(context.output, self.compare.run(&context)));
        };
        match what {
            What::Kv(load) => block_on(load.run(&context)),
            What::Pay(load) => block_on(load.run(&context)),
            What::Shop(load) => block_on(load.run(&context)),
            What::Predict(load) => block_on(load.run(&context)),
            What::Failover(failover) => block_on(failover.run(&context)),
            What::Drive(drive) => drive.run(&context),
            What::NoOp(server) => server.run(),
            What::Redundancy(redundancy) => {
                block_on(until_interrupted(context.output, redundancy.run(&context)))
            }
        }
    }
}

/// Nodes and token, for generators that speak plain HTTP.
struct Target {
    endpoints: Vec<String>,
    token: String,
}

impl Target {
    fn find(context: &Context, nodes: &Nodes) -> anyhow::Result<Self> {
        let endpoints = nodes.endpoints(context);
        let token = nodes.token(context).context("find the token")?;
        Ok(Self { endpoints, token })
    }
}
