//! `menagerie units`: systemd units, one a process, for running the same configuration on several machines.
//! Invariant: the units run what the launcher would run, since both come from the same list.
//! It must not touch the machine: it prints, or writes to the folder it is told.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use service::config::Step;
use service::open_files::BESIDE_CLIENTS;

use super::plan::{self, Process};
use crate::context::Context;
use crate::output::Usage;

/// Enough for many more connections than are taken where nothing is configured.
const OPEN_FILES_MIN: usize = 65_536;

#[derive(Args)]
pub(crate) struct Units {
    /// Processes such as n1; all of them when left out
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write the files into this folder, such as /etc/systemd/system, in place of printing them
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The program on those machines
    #[arg(long, value_name = "FILE", default_value = "/usr/local/bin/menagerie")]
    program: String,
    /// The user to run as
    #[arg(long, value_name = "NAME", default_value = "menagerie")]
    user: String,
    /// The configuration on those machines
    #[arg(long, value_name = "FILE", default_value = "/etc/menagerie/cluster.toml")]
    configuration: String,
    /// The data folder on those machines; each needs the same secrets.toml in it
    #[arg(long, value_name = "DIR", default_value = "/var/lib/menagerie")]
    state: String,
}

impl Units {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        for path in [&self.program, &self.configuration, &self.state] {
            if !is_plain(path) {
                bail!(Usage(format!(
                    "{path:?} must be an absolute path of letters, digits and ./_-+@:"
                )));
            }
        }
        let backups = self.backups(&context)?;
        refuse_relative(&context)?;
        let named = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
        if self.user.is_empty() || !self.user.chars().all(named) {
            bail!(Usage(format!("--user {:?} is not the name of a user", self.user)));
        }
        let mut processes = plan::processes(&context.config);
        let known: Vec<String> = processes.iter().map(|process| process.name.clone()).collect();
        if let Some(stranger) = self.names.iter().find(|name| !known.contains(name)) {
            bail!(Usage(format!(
                "there is no process {stranger:?}; there are: {}",
                known.join(", ")
            )));
        }
        if !self.names.is_empty() {
            processes.retain(|process| self.names.contains(&process.name));
        }
        let files = context.config.limits.connections_max + BESIDE_CLIENTS;
        let units: Vec<(String, String)> = processes
            .iter()
            .map(|process| self.unit(process, backups, files.max(OPEN_FILES_MIN)))
            .collect();
        if context.output.json {
            let units = units
                .iter()
                .map(|(file, text)| serde_json::json!({ "file": file, "text": text }));
            return Ok(context.output.document(&units.collect::<Vec<_>>())?);
        }
        if let Some(folder) = &self.into {
            return write(&context, folder, &units);
        }
        for (file, text) in units {
            context.output.line(format_args!("# {file}\n{text}"))?;
        }
        Ok(())
    }

    /// Where nodes write backups, if that is not below the data folder.
    fn backups<'c>(&self, context: &'c Context) -> anyhow::Result<Option<&'c str>> {
        let folder = &context.config.backup.folder;
        if folder.as_os_str().is_empty() || folder.starts_with(&self.state) {
            return Ok(None);
        }
        let Some(plain) = folder.to_str().filter(|folder| is_plain(folder)) else {
            // A relative one would begin at the root, where systemd starts processes.
            bail!(Usage(format!(
                "{}: for a unit, backup.folder = \"{}\" must be an absolute path of letters, digits and ./_-+@:",
                context.place_of(&[Step::Key("backup"), Step::Key("folder")]),
                folder.display()
            )));
        };
        Ok(Some(plain))
    }

    fn unit(&self, process: &Process, backups: Option<&str>, files: usize) -> (String, String) {
        let (name, kind, arguments) = (&process.name, process.kind, process.arguments.join(" "));
        let Self {
            program,
            user,
            configuration,
            state,
            ..
        } = self;
        // systemd makes folders there itself; any other must be there already.
        let made = state.strip_prefix("/var/lib/").map_or(String::new(), |folder| {
            format!("StateDirectory={folder}\nStateDirectoryMode=0700\n")
        });
        // That the disk for backups is missing is no reason for a node not to start.
        let backups = backups.filter(|_| kind == "node").map_or(String::new(), |folder| {
            format!("# Backups: before the start it must be there and belong to {user}.\nReadWritePaths=-{folder}\n")
        });
        let text = format!(
            "\
[Unit]
Description=Menagerie {name} ({kind})
After=network-online.target
Wants=network-online.target
# Without an end: what keeps it from starting, such as an address that is not there yet, may pass.
StartLimitIntervalSec=0

[Service]
ExecStart={program} {arguments} --config {configuration} --data {state}
User={user}
Restart=always
RestartSec=1
# SIGTERM hands over what the process leads before it ends.
TimeoutStopSec=30
LimitNOFILE={files}
{made}ReadWritePaths={state}
{backups}ProtectSystem=strict
ProtectHome=true
PrivateTmp=true
PrivateDevices=true
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
"
        );
        (format!("menagerie-{name}.service"), text)
    }
}

/// Nothing that systemd would read as several words, a specifier or a variable.
fn is_plain(path: &str) -> bool {
    let plain = |character: char| character.is_alphanumeric() || "/._-+@:".contains(character);
    path.starts_with('/') && path.chars().all(plain)
}

/// What processes read from elsewhere than the data folder, as `backups` is where they write to.
fn refuse_relative(context: &Context) -> anyhow::Result<()> {
    let tls = &context.config.tls.folder;
    let folder = (
        vec![Step::Key("tls"), Step::Key("folder")],
        "tls.folder",
        tls.as_path(),
    );
    let tables = context.config.models.iter().enumerate().map(|(index, model)| {
        let setting = vec![Step::Key("predictor"), Step::Index(index), Step::Key("table")];
        (setting, "table", Path::new(&model.table))
    });
    for (setting, key, path) in std::iter::once(folder).chain(tables) {
        if path.is_relative() && !path.as_os_str().is_empty() {
            bail!(Usage(format!(
                "{}: for a unit, {key} = \"{}\" must be an absolute path: a relative one would begin at the root, where \
                 systemd starts processes",
                context.place_of(&setting),
                path.display()
            )));
        }
    }
    Ok(())
}

fn write(context: &Context, folder: &Path, units: &[(String, String)]) -> anyhow::Result<()> {
    for (file, text) in units {
        let path = folder.join(file);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        context.output.line(path.display())?;
    }
    Ok(())
}
