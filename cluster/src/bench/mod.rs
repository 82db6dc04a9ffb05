//! `menagerie bench`: measures the running cluster from outside, as its clients see it.
//! Invariant: the generator runs on one thread and does as little as it can a request,
//! since on a small machine whatever it burns is missing to what it measures.

mod cards;
mod closed_loop;
mod connection;
mod failover;
mod kv;
mod pay;
mod predict;
mod redundancy;
mod shop;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::context::{Context, block_on};
use crate::kv::reach::Reach;

#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
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
    /// What each kind of redundancy costs and saves: starts clusters of its own and takes their disks away
    Redundancy(redundancy::Redundancy),
}

impl Bench {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        match self.what {
            What::Kv(load) => block_on(load.run(&context)),
            What::Pay(load) => block_on(load.run(&context)),
            What::Shop(load) => block_on(load.run(&context)),
            What::Predict(load) => block_on(load.run(&context)),
            What::Failover(failover) => block_on(failover.run(&context)),
            What::Redundancy(redundancy) => block_on(redundancy.run(&context)),
        }
    }
}

/// Nodes and token, for generators that speak plain HTTP.
struct Target {
    endpoints: Vec<String>,
    token: String,
}

impl Target {
    fn find(context: &Context, reach: &Reach) -> anyhow::Result<Self> {
        let endpoints = reach.endpoints(context);
        let token = reach.token(context).context("find the token")?;
        Ok(Self { endpoints, token })
    }
}
