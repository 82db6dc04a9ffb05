//! `menagerie gateway`: one address in front of all shops, in this process.
//! Invariant: the port is bound before anything else is done, so that a taken port harms nothing.

use ::gateway::Settings;
use anyhow::Context as _;
use clap::Args;
use service::secrets;
use service::tasks::Tasks;
use service::telemetry::{self, Format};

use crate::context::{Context, block_on};
use crate::node::bind;
use crate::output::Usage;
use crate::process::Supervised;

pub(crate) const NAME: &str = "gateway";

#[derive(Args)]
pub(crate) struct Gateway {
    #[command(flatten)]
    supervised: Supervised,
}

impl Gateway {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        self.supervised.begin()?;
        telemetry::init(NAME, Format::Auto)?;
        block_on(serve(context))
    }
}

async fn serve(context: Context) -> anyhow::Result<()> {
    let address = context.config.gateway.address.clone();
    if address.is_empty() {
        let text = "the configuration has no gateway; gateway.address makes one";
        return Err(Usage(text.to_owned()).into());
    }
    let listener = bind(&address).await?;
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let settings = Settings {
        config: context.config,
        name: NAME.to_owned(),
        secrets,
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    Box::pin(::gateway::run(settings, listener, tasks)).await
}
