//! `menagerie demo`: something worth seeing, step by step and in words, for a talk or a class.
//! Invariant: the exit code says whether all held that was claimed.

mod failover;
mod fallacies;
mod scene;

use clap::Subcommand;

use crate::context::{Context, block_on};

#[derive(Subcommand)]
pub(crate) enum Demo {
    /// Kill the leader under load, measure the gap, prove that nothing was lost, bring it back
    Failover(failover::Failover),
    /// Show the eight fallacies of distributed computing, each as an experiment on three nodes of its own
    Fallacies(fallacies::Fallacies),
}

impl Demo {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        match self {
            Self::Failover(failover) => block_on(failover.run(&context)),
            Self::Fallacies(fallacies) => block_on(fallacies.run(&context)),
        }
    }
}
