//! `menagerie`, the one binary: parses the command line and hands over to one file a subcommand.
//! Exit code 0 is success, 1 is failure, 2 is wrong usage.
//! It must not know how any of the commands does its work.

mod arena;
mod bench;
#[cfg(test)]
#[path = "../service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../service/tests/it/bent_requests.rs"]
mod bent_requests;
mod certificates;
mod chaos;
mod check;
mod cli;
mod completion;
mod console;
mod context;
mod demo;
mod doctor;
mod etcd;
mod gateway;
mod instance;
mod kv;
mod launcher;
mod leash;
mod mirror;
mod moving;
mod node;
mod output;
mod predictor;
mod predictors;
mod probe;
mod process;
mod promote;
mod signals;
mod token;

use std::process::ExitCode;

use clap::Parser;

// RocksDB and the raft core allocate much and on many threads; the system's allocator keeps far more of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // clap itself ends the process here: with 0 after --help, with 2 on wrong usage.
    let cli = cli::Cli::parse();
    let output = output::Output {
        json: cli.global.json,
    };
    service::open_files::raise();
    match check_processor().and_then(|()| cli.run(output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(&error),
    }
}

/// RocksDB is built for instructions (`.cargo/config.toml`) that the models of virtual machines may leave out: there it
/// would end by a signal, again and again, and nobody would say why.
fn check_processor() -> anyhow::Result<()> {
    #[cfg(target_arch = "x86_64")]
    let has_all =
        std::arch::is_x86_feature_detected!("sse4.2") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(not(target_arch = "x86_64"))]
    let has_all = true;
    anyhow::ensure!(
        has_all,
        "this processor lacks SSE 4.2 or PCLMULQDQ, which this program is built for; a virtual machine has them if it \
         is given the processor of its host"
    );
    Ok(())
}
