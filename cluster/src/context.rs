//! What every command starts from: the configuration, the data folder and the way to speak.
//! Invariant: paths are absolute, so that child processes and messages mean the same files.
//! It must not start anything.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use service::config::{self, Config};
use service::secrets::{self, Secrets};

use crate::cli::Global;
use crate::output::Output;

/// The file that is used when it lies in the working directory and no other is named.
const CONFIG_FILE: &str = "cluster.toml";

pub(crate) struct Context {
    pub(crate) config: Config,
    /// None: the built-in configuration of one node.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) data: PathBuf,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn load(global: Global, output: Output) -> anyhow::Result<Self> {
        let config_file = match global.config {
            Some(file) => Some(file),
            None => Some(PathBuf::from(CONFIG_FILE)).filter(|file| file.exists()),
        };
        let config = match &config_file {
            Some(file) => config::load(file)?,
            None => Config::default(),
        };
        let data = global.data.unwrap_or_else(|| config.data.clone());
        Ok(Self {
            config_file: config_file.as_deref().map(absolute).transpose()?,
            data: absolute(&data)?,
            config,
            output,
        })
    }

    /// The secrets that the first start made. Reading them never makes them.
    pub(crate) fn secrets(&self) -> anyhow::Result<Secrets> {
        secrets::load(&self.data).with_context(|| {
            format!(
                "read the secrets in {} (the first `menagerie up` makes them; --data names another folder)",
                self.data.display()
            )
        })
    }
}

/// A small runtime for commands that only ask and wait.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}
