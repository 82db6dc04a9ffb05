//! `menagerie pay --name pay1` and `menagerie shop --name shop1`: one instance of a service, in this process.
//! Invariant: the port is bound before anything else is done, so that a taken port harms nothing.

use anyhow::Context as _;
use clap::Args;
use service::tasks::Tasks;
use service::telemetry::{self, Format};
use service::{config::Config, secrets};

use crate::context::{Context, block_on};
use crate::node::bind;
use crate::output::Usage;
use crate::process::Supervised;

#[derive(Args)]
pub(crate) struct Instance {
    /// Which instance of the configuration this process is, such as pay1 or shop1
    #[arg(long, value_name = "NAME", required_unless_present = "id")]
    name: Option<String>,
    /// The same by its number, such as 1
    #[arg(long, value_name = "N", conflicts_with = "name")]
    id: Option<u64>,
    #[command(flatten)]
    supervised: Supervised,
}

/// A service of which any number of instances may run.
#[derive(Clone, Copy)]
pub(crate) enum Service {
    Payment,
    Shop,
}

impl Service {
    /// What names of instances begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Payment => "pay",
            Self::Shop => "shop",
        }
    }

    fn section(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Shop => "shop",
        }
    }

    /// Name and address of each that the configuration has.
    fn instances(self, config: &Config) -> Vec<(String, String)> {
        let owned = |(name, address): (String, &str)| (name, address.to_owned());
        match self {
            Self::Payment => config.payment.instances().map(owned).collect(),
            Self::Shop => config.shop.instances().map(owned).collect(),
        }
    }
}

impl Instance {
    pub(crate) fn name(&self, service: Service) -> String {
        let by_number = || self.id.map(|id| format!("{}{id}", service.prefix()));
        self.name.clone().or_else(by_number).unwrap_or_default()
    }

    pub(crate) fn run(self, context: Context, service: Service) -> anyhow::Result<()> {
        let name = self.name(service);
        self.supervised.begin()?;
        telemetry::init(&name, Format::Auto)?;
        block_on(serve(service, name, context))
    }
}

async fn serve(service: Service, name: String, context: Context) -> anyhow::Result<()> {
    let instances = service.instances(&context.config);
    let Some((_, address)) = instances.iter().find(|(known, _)| *known == name).cloned() else {
        let names: Vec<String> = instances.into_iter().map(|(name, _)| name).collect();
        let text = format!(
            "the configuration has no {name:?}; {}.addresses makes: {}",
            service.section(),
            names.join(", ")
        );
        return Err(Usage(text).into());
    };
    let listener = bind(&address).await?;
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let config = Config {
        data: context.data,
        ..context.config
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    match service {
        Service::Payment => {
            let settings = payment::Settings {
                config,
                name,
                address,
                secrets,
                points: payment::Points::none(),
            };
            Box::pin(payment::run(settings, listener, tasks)).await
        }
        Service::Shop => {
            let settings = petstore::Settings {
                config,
                name,
                address,
                secrets,
                points: petstore::Points::none(),
            };
            Box::pin(petstore::run(settings, listener, tasks)).await
        }
    }
}
