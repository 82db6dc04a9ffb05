//! `menagerie shop --name shop1`: one instance of the pet shop, in this process.
//! Invariant: the port is bound before anything else is done, so that a taken port harms nothing.

use anyhow::Context as _;
use clap::Args;
use petstore::Settings;
use service::tasks::Tasks;
use service::telemetry::{self, Format};
use service::{config::Config, secrets};

use crate::context::{Context, block_on};
use crate::node::bind;
use crate::output::Usage;
use crate::process::Supervised;

#[derive(Args)]
pub(crate) struct Shop {
    /// Which instance of the configuration this process is, such as shop1
    #[arg(long, value_name = "NAME", required_unless_present = "id")]
    name: Option<String>,
    /// The same by its number: 1 is shop1
    #[arg(long, value_name = "N", conflicts_with = "name")]
    id: Option<u64>,
    #[command(flatten)]
    supervised: Supervised,
}

impl Shop {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        self.supervised.begin()?;
        let by_number = self.id.map(|id| format!("shop{id}"));
        let name = self.name.or(by_number).unwrap_or_default();
        telemetry::init(&name, Format::Auto)?;
        block_on(serve(name, context))
    }
}

async fn serve(name: String, context: Context) -> anyhow::Result<()> {
    let Some(address) = context.config.shop.address(&name).map(str::to_owned) else {
        let names: Vec<String> = context.config.shop.instances().map(|(name, _)| name).collect();
        let names = names.join(", ");
        return Err(Usage(format!(
            "the configuration has no shop {name:?}; shop.addresses makes: {names}"
        ))
        .into());
    };
    let listener = bind(&address).await?;
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let settings = Settings {
        config: Config {
            data: context.data,
            ..context.config
        },
        name,
        address,
        secrets,
        points: petstore::Points::none(),
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    Box::pin(petstore::run(settings, listener, tasks)).await
}
