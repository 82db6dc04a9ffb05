//! What every command starts from: the configuration, the data folder, the way to speak, and the runtime it waits on.
//! Invariant: paths are absolute, so that child processes and messages mean the same files.
//! It must not start anything.

use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::Context as _;
use service::config::{self, Config, Step};
use service::private;
use service::secrets::{self, Secrets};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Global;
use crate::output::{Output, Usage};
use crate::signals::HangUp;

/// The file that is used when it lies in the working directory and no other is named.
const CONFIG_FILE: &str = "cluster.toml";

pub(crate) struct Context {
    pub(crate) config: Config,
    /// None: the built-in configuration of one node.
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) data: PathBuf,
    /// Whether the configuration names the folder, not the command line.
    data_is_configured: bool,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn load(global: Global, output: Output) -> anyhow::Result<Self> {
        let config_file = match global.config {
            Some(file) => Some(file),
            None => Some(PathBuf::from(CONFIG_FILE)).filter(|file| file.exists()),
        };
        let config = match &config_file {
            // What stands in the file is as much the user's word as what stands on the command line.
            Some(file) => config::load(file).map_err(|error| Usage(format!("{error:#}")))?,
            None => Config::default(),
        };
        let data = global.data.as_deref().unwrap_or(&config.data);
        Ok(Self {
            config_file: config_file.as_deref().map(absolute).transpose()?,
            data: absolute(data)?,
            data_is_configured: global.data.is_none(),
            config,
            output,
        })
    }

    /// Where a setting stands, such as `cluster.toml:12`.
    pub(crate) fn place_of(&self, setting: &[Step]) -> String {
        match &self.config_file {
            Some(file) => config::locate(&near(file), setting),
            None => "built-in configuration".to_owned(),
        }
    }

    /// Where the data folder was named.
    pub(crate) fn place_of_data(&self) -> String {
        if self.data_is_configured {
            self.place_of(&[Step::Key("data")])
        } else {
            "--data".to_owned()
        }
    }

    /// Makes the data folder where there is none, for its owner alone: all that the store holds will be in it.
    pub(crate) fn make_data(&self) -> anyhow::Result<()> {
        if self.data.is_dir() {
            return Ok(());
        }
        private::make_folder(&self.data)
            .with_context(|| format!("make the data folder {}", self.data.display()))
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

/// Ends early when the user, or whoever started it, says so, or when the user's terminal is gone: then everything of the
/// run is dropped, and so removed.
pub(crate) async fn until_interrupted<T>(
    output: Output,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut stop = signal(SignalKind::terminate()).context("take over the signals")?;
    let mut hang_up = HangUp::listen().context("take over the signals")?;
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        _ = tokio::signal::ctrl_c() => {}
        _ = stop.recv() => {}
        () = hang_up.next() => {}
    }
    // Before the drop, which waits for the end of what was started, and hears nothing more meanwhile.
    output.note("stopping … (Ctrl-\\ ends it at once, and leaves behind what it has made)");
    anyhow::bail!("interrupted")
}

/// As a user in this folder would name it.
fn near(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    below.unwrap_or_else(|| path.to_path_buf())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("make {} absolute", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_data_folder_is_made_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context {
            config: Config::default(),
            config_file: None,
            data: folder.path().join("new").join("data"),
            data_is_configured: false,
            output: Output { json: true },
        };
        context.make_data().unwrap();
        let mode = std::fs::metadata(&context.data).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        context.make_data().unwrap();
    }
}
