//! The command line as a type: every subcommand with its words, and who carries it out.
//! Invariant: options that work everywhere (`--data`, `--config`, `--json`) stand in `Global` and nowhere else.
//! It must not know what the commands do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::certificates::{self, CONSOLE, Identity};
use crate::context::Context;
use crate::instance::{Instance, Service};
use crate::launcher::place::Place;
use crate::output::Output;
use crate::{
    bench, chaos, check, completion, demo, doctor, kv, launcher, leash, node, predictor, predictors, token,
};

#[derive(Parser)]
#[command(
    name = "menagerie",
    version,
    about = "A replicated key-value store: start it, use it, break it, watch it heal"
)]
#[command(
    after_help = "Start with `menagerie up`, then `menagerie kv put greeting hello` in another terminal."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Folder that holds all state and the secrets [default: `data` of the configuration]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub(crate) data: Option<PathBuf>,
    /// The system's configuration [default: ./cluster.toml, else one node with built-in settings]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
}

/// For options that take a length of time as a number; `nan` and `inf` are numbers for Rust, and none here.
pub(crate) fn finite(text: &str) -> anyhow::Result<f64> {
    let number: f64 = text.parse()?;
    anyhow::ensure!(number.is_finite(), "it must be finite");
    Ok(number)
}

#[derive(Subcommand)]
enum Command {
    /// Start all nodes and watch over them until Ctrl-C
    Up(launcher::up::Up),
    /// Stop everything that `up` started, and wait for it
    Down,
    /// Show every process, its state, and who leads
    Status(launcher::status::Show),
    /// Print what processes have logged
    Logs(launcher::logs::Logs),
    /// Kill processes at once (kill -9); they stay down until `start`
    Kill(launcher::act::Names),
    /// Stop processes in an orderly way (SIGTERM); they stay down until `start`
    Term(launcher::act::Names),
    /// Freeze processes (SIGSTOP)
    Pause(launcher::act::Names),
    /// Let frozen processes go on (SIGCONT)
    Resume(launcher::act::Names),
    /// Start processes that are down
    Start(launcher::act::Start),
    /// Stop processes in an orderly way and start them again
    Restart(launcher::act::Start),
    /// Run one node of the store in this process
    Node(node::Node),
    /// Run one instance of the payment service in this process
    Pay(Instance),
    /// Run one instance of the pet shop in this process
    Shop(Instance),
    /// Run the gateway in this process: one address in front of all shops
    Gateway(crate::gateway::Gateway),
    /// Run one mirror of the store in this process, or make a new cluster out of one
    Mirror(crate::mirror::Mirror),
    /// Run one model of the prediction network in this process
    Predictor(predictor::Predictor),
    /// Run one instance of the consensus of the models in this process
    Consensus(predictor::Consensus),
    /// Judge the models, and simulate the network with honest models and adversaries
    #[command(subcommand)]
    Predictors(predictors::Predictors),
    /// Show something worth seeing, step by step
    #[command(subcommand)]
    Demo(demo::Demo),
    /// Print systemd units that run the processes of this configuration on other machines
    Units(launcher::units::Units),
    /// Print one bearer token of secrets.toml, for curl
    Token(token::Token),
    /// Make an authority and certificates for TLS, and renew what nears its end
    Certs(certificates::Certs),
    /// Use the store: keys, transactions, watches, leases, members
    Kv(kv::Kv),
    /// Prove that the books agree: shop, payments and stakes, each at one revision
    Check,
    /// Look at this machine and at the running cluster, and say what to do
    Doctor(doctor::Doctor),
    /// Measure the store beside etcd, or what is running
    Bench(bench::Bench),
    /// Break three nodes of its own in every way there is, and judge what clients saw
    Chaos(chaos::Chaos),
    /// How `kv lease hold` starts its command
    #[command(hide = true)]
    Leash(leash::Leash),
    /// Print a completion script for a shell
    Completion(completion::Completion),
}

impl Command {
    /// Whom the command speaks as where TLS is on.
    fn identity(&self) -> Identity {
        match self {
            Self::Certs(_)
            | Self::Units(_)
            | Self::Token(_)
            | Self::Predictors(_)
            | Self::Chaos(_)
            | Self::Leash(_)
            | Self::Completion(_)
            // These ask the launcher, through its socket, or read its files.
            | Self::Down
            | Self::Logs(_)
            | Self::Kill(_)
            | Self::Term(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Start(_)
            | Self::Restart(_)
            // These speak once they know that there is somebody to be asked.
            | Self::Status(_)
            | Self::Demo(_) => Identity::Nobody,
            // A backup, and what is left of a cluster, is also there where no certificates are yet.
            Self::Kv(kv) if kv.works_on_files() => Identity::Nobody,
            // What is measured on servers of its own speaks in the clear.
            Self::Bench(bench) if !bench.asks_what_runs() => Identity::Nobody,
            Self::Up(_) => Identity::Process(CONSOLE.to_owned()),
            Self::Node(node) => Identity::Process(node.name()),
            Self::Pay(instance) => Identity::Process(instance.name(Service::Payment)),
            Self::Shop(instance) => Identity::Process(instance.name(Service::Shop)),
            Self::Gateway(_) => Identity::Process(crate::gateway::NAME.to_owned()),
            Self::Mirror(mirror) => mirror.name().map_or(Identity::Nobody, Identity::Process),
            Self::Predictor(predictor) => Identity::Process(predictor.name()),
            Self::Consensus(consensus) => Identity::Process(consensus.name.clone()),
            Self::Kv(_) | Self::Check | Self::Doctor(_) | Self::Bench(_) => Identity::Client,
        }
    }
}

impl Cli {
    pub(crate) fn run(self, output: Output) -> anyhow::Result<()> {
        if let Command::Completion(completion) = self.command {
            return completion.run(output);
        }
        if let Command::Leash(leash) = self.command {
            return leash.run();
        }
        let mut global = self.global;
        // Where models learn, `--data FILE.csv` is what they learn from, and not the data folder.
        let learns = matches!(self.command, Command::Predictor(_) | Command::Predictors(_));
        let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "csv");
        let table = global.data.take_if(|path| learns && is_table(path));
        let mut context = Context::load(global, output)?;
        // Who signs in over TLS must not send the cookie without it.
        context.config.shop.secure_cookies |= context.config.tls.enabled;
        if let Command::Up(_) = self.command {
            // Before anything is written into it.
            launcher::supervisor::make(&context, &Place::new(&context.data))?;
            certificates::make_missing(&context)?;
        }
        let spoken = certificates::speak(&context, &self.command.identity());
        // The doctor finds and says what is wrong with certificates.
        if !matches!(self.command, Command::Doctor(_)) {
            spoken?;
        }
        match self.command {
            Command::Up(up) => up.run(context),
            Command::Down => launcher::down::run(context),
            Command::Status(show) => show.run(context),
            Command::Logs(logs) => logs.run(context),
            Command::Kill(names) => names.run(context, launcher::Action::Kill),
            Command::Term(names) => names.run(context, launcher::Action::Term),
            Command::Pause(names) => names.run(context, launcher::Action::Pause),
            Command::Resume(names) => names.run(context, launcher::Action::Resume),
            Command::Start(start) => start.run(context, launcher::Action::Start),
            Command::Restart(start) => start.run(context, launcher::Action::Restart),
            Command::Node(node) => node.run(context),
            Command::Pay(instance) => instance.run(context, Service::Payment),
            Command::Shop(instance) => instance.run(context, Service::Shop),
            Command::Gateway(gateway) => gateway.run(context),
            Command::Mirror(mirror) => mirror.run(context),
            Command::Predictor(predictor) => predictor.run(context, table),
            Command::Consensus(consensus) => consensus.run(context),
            Command::Predictors(predictors) => predictors.run(&context, table),
            Command::Demo(demo) => demo.run(context),
            Command::Units(units) => units.run(context),
            Command::Token(token) => token.run(context),
            Command::Certs(certs) => certs.run(context),
            Command::Kv(kv) => kv.run(context),
            Command::Check => check::run(context),
            Command::Doctor(doctor) => doctor.run(context),
            Command::Bench(bench) => bench.run(context),
            Command::Chaos(chaos) => chaos.run(&context),
            Command::Leash(leash) => leash.run(),
            Command::Completion(completion) => completion.run(output),
        }
    }
}
