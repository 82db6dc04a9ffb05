//! `menagerie completion bash|zsh|fish`: a script for the shell, made from the command line's own description.
//! Invariant: needs neither configuration nor data, so that it works on a machine that has only the binary.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::Output;

#[derive(Args)]
pub(crate) struct Completion {
    /// The shell to complete for
    shell: Kind,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(self, output: Output) -> anyhow::Result<()> {
        let shell = match self.shell {
            Kind::Bash => Shell::Bash,
            Kind::Zsh => Shell::Zsh,
            Kind::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "menagerie", &mut script);
        Ok(output.bytes(&script)?)
    }
}
