//! `menagerie predictor --model knn` and `menagerie consensus`: one process of the prediction network.
//! Invariant: the port is bound before anything else is done, so that a taken port harms nothing.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use predictors::Settings;
use service::config::{Behaviour, Config, PredictorConfig};
use service::secrets;
use service::tasks::Tasks;
use service::telemetry::{self, Format};

use crate::context::{Context, block_on};
use crate::node::bind;
use crate::output::Usage;
use crate::process::Supervised;

/// What a model learns from, in place of what the configuration says.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Learning {
    /// A CSV file to learn from, with a line of names; `--data FILE.csv` says the same [default: the irises]
    #[arg(long, value_name = "FILE")]
    pub(crate) table: Option<PathBuf>,
    /// The column of the labels [default: the last]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// A column to leave out; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub(crate) ignore: Vec<String>,
    /// Fill gaps with the mean of their column
    #[arg(long, value_name = "HOW", value_parser = ["mean"])]
    pub(crate) impute: Option<String>,
}

impl Learning {
    /// With the table that `--data FILE.csv` names, and refused where it has none: what the other options say is about
    /// one, and would be left out without a word.
    pub(crate) fn over(mut self, table: Option<PathBuf>) -> anyhow::Result<Self> {
        self.table = self.table.or(table);
        let about_it = [
            ("--label", self.label.is_some()),
            ("--ignore", !self.ignore.is_empty()),
            ("--impute", self.impute.is_some()),
        ];
        let given = about_it.iter().find(|(_, given)| *given);
        if let (None, Some((option, _))) = (&self.table, given) {
            return Err(Usage(format!(
                "{option} says how to read a table: name it with --table FILE"
            ))
            .into());
        }
        Ok(self)
    }
}

#[derive(Args)]
pub(crate) struct Predictor {
    /// Which model of the configuration this process is, or one of naive-bayes, knn, logistic, tree, forest
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Under which name [default: the model's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where to listen [default: as configured]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    learning: Learning,
    /// Misbehave, for the classroom: random, always-wrong, copy, sleep, turn-bad-after N or slow MS
    #[arg(long, value_name = "HOW", num_args = 1..=2)]
    behave: Vec<String>,
    #[command(flatten)]
    supervised: Supervised,
}

#[derive(Args)]
pub(crate) struct Consensus {
    /// Which instance of the configuration this process is
    #[arg(long, value_name = "NAME", default_value = "consensus")]
    pub(crate) name: String,
    #[command(flatten)]
    supervised: Supervised,
}

impl Predictor {
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.model.clone())
    }

    /// What `--data FILE.csv` names is a table, since no data folder is called so.
    pub(crate) fn run(self, mut context: Context, table: Option<PathBuf>) -> anyhow::Result<()> {
        let name = self.name();
        let learning = self.learning.over(table)?;
        self.supervised.begin()?;
        telemetry::init(&name, Format::Auto)?;
        let model = configured(
            &context.config,
            &name,
            &self.model,
            self.address,
            learning,
            &self.behave,
        )?;
        let address = model.address.clone();
        let models = &mut context.config.models;
        models.retain(|other| other.name != name);
        models.push(model);
        block_on(async {
            let listener = bind(&address).await?;
            let (settings, tasks) = prepare(context, name, address)?;
            Box::pin(predictors::model::run(settings, listener, tasks)).await
        })
    }
}

/// The model as it stands in the configuration, with what the command line says instead.
fn configured(
    config: &Config,
    name: &str,
    kind: &str,
    address: Option<String>,
    learning: Learning,
    behave: &[String],
) -> anyhow::Result<PredictorConfig> {
    let known = config.models.iter().find(|model| model.name == name);
    let known = known.or_else(|| config.models.iter().find(|model| model.name == kind));
    let mut model = match (known, &address) {
        (Some(known), _) => known.clone(),
        (None, Some(address)) if kind.parse::<predictors::models::Kind>().is_ok() => PredictorConfig {
            name: name.to_owned(),
            address: address.clone(),
            model: kind.to_owned(),
            table: String::new(),
            label: String::new(),
            ignore: Vec::new(),
            impute: String::new(),
            behave: String::new(),
            seed: 1,
        },
        (None, _) => {
            let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
            return Err(Usage(format!(
                "the configuration has no predictor {name:?} (it has: {}); to run another, say which kind of model \
                 with --model and where it listens with --address",
                names.join(", ")
            ))
            .into());
        }
    };
    name.clone_into(&mut model.name);
    model.address = address.unwrap_or(model.address);
    if let Some(table) = learning.table {
        model.table = table.to_string_lossy().into_owned();
        model.label = learning.label.unwrap_or_default();
        model.ignore = learning.ignore;
        model.impute = learning.impute.unwrap_or_default();
    }
    if !behave.is_empty() {
        model.behave = behave.join(" ");
        let sound = model.behave.parse::<Behaviour>();
        sound.map_err(|fault| Usage(format!("--behave {:?} {fault}", model.behave)))?;
    }
    Ok(model)
}

impl Consensus {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        self.supervised.begin()?;
        telemetry::init(&self.name, Format::Auto)?;
        let config = &context.config.consensus;
        let Some(address) = config.address(&self.name).map(str::to_owned) else {
            let names: Vec<String> = config.instances().map(|(name, _)| name).collect();
            return Err(Usage(format!(
                "the configuration has no consensus {:?}; consensus.addresses makes: {}",
                self.name,
                names.join(", ")
            ))
            .into());
        };
        block_on(async {
            let listener = bind(&address).await?;
            let (settings, tasks) = prepare(context, self.name, address)?;
            Box::pin(predictors::consensus::run(settings, listener, tasks)).await
        })
    }
}

fn prepare(context: Context, name: String, address: String) -> anyhow::Result<(Settings, Tasks)> {
    let secrets = secrets::load_or_create(&context.data).context("open the secrets")?;
    let settings = Settings {
        config: Config {
            data: context.data,
            ..context.config
        },
        name,
        address,
        secrets,
    };
    let tasks = Tasks::new();
    tasks.stop_on_signals().context("take over the signals")?;
    Ok((settings, tasks))
}
