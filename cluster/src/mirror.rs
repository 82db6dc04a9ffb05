//! `menagerie mirror --name mirror-sync`: one mirror of the store, in this process; and `menagerie mirror promote`.
//! Invariant: the port is bound before anything else is done, so that a taken port harms nothing.

use ::mirror::Settings;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use service::secrets;
use service::tasks::Tasks;
use service::telemetry::{self, Format};

use crate::context::{Context, block_on};
use crate::node::bind;
use crate::output::Usage;
use crate::process::Supervised;
use crate::promote::Promote;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Mirror {
    #[command(subcommand)]
    other: Option<Other>,
    /// Which mirror of the configuration this process is, such as mirror-sync
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    supervised: Supervised,
}

#[derive(Subcommand)]
enum Other {
    /// Make a new cluster out of a mirror alone, when all nodes are lost
    Promote(Promote),
}

impl Mirror {
    /// Of the process; making a cluster out of a mirror is none.
    pub(crate) fn name(&self) -> Option<String> {
        let serves = self.other.is_none();
        serves.then(|| self.name.clone().unwrap_or_default())
    }

    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        if let Some(Other::Promote(promote)) = self.other {
            return promote.run(&context);
        }
        self.supervised.begin()?;
        let name = self.name.unwrap_or_default();
        telemetry::init(&name, Format::Auto)?;
        block_on(serve(name, context))
    }
}

async fn serve(name: String, context: Context) -> anyhow::Result<()> {
    let Some(mirror) = context.config.mirror(&name) else {
        let known: Vec<&str> = context
            .config
            .mirrors
            .iter()
            .map(|mirror| mirror.name.as_str())
            .collect();
        let text = match known.as_slice() {
            [] => "the configuration has no mirror; a section [[mirror]] makes one".to_owned(),
            known => format!("--name must be one of the mirrors {}", known.join(", ")),
        };
        return Err(Usage(text).into());
    };
    let address = mirror.address.clone();
    let listener = bind(&address).await?;
    let address = match listener.local_addr() {
        Ok(bound) if address.ends_with(":0") => bound.to_string(),
        _ => address,
    };
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let settings = Settings {
        data: context.data.join(&name),
        config: context.config,
        name,
        address,
        secrets,
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    Box::pin(::mirror::run(settings, listener, tasks)).await
}
