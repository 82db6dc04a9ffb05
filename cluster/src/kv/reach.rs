//! How a command reaches the store: which nodes, as whom, and for how long it tries.
//! Invariant: a token is never an argument, since everyone on a machine can read the arguments of processes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kvstore_client::{Builder, KvClient};

use super::Session;
use crate::context::Context;
use crate::kv::show::parse_duration;
use crate::output::Usage;

/// The token for those who have no data folder, such as a script on another machine.
const TOKEN_VARIABLE: &str = "MENAGERIE_TOKEN";
/// How long is tried where nobody says so.
const TIMEOUT: Duration = Duration::from_secs(5);
/// No node takes so long until a backup begins.
const BACKUP_TIME_MAX: Duration = Duration::from_hours(6);

/// Which nodes are asked, and as whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Nodes {
    /// Nodes to ask, as host:port,… [default: those of the configuration]
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "ADDRESSES",
        help_heading = "Reaching the store"
    )]
    endpoints: Vec<String>,
    /// File that holds the token [default: `$MENAGERIE_TOKEN`, else root's in secrets.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Reaching the store")]
    token_file: Option<PathBuf>,
}

/// The same, with how long to try, and how to write.
#[derive(Args, Clone, Debug)]
pub(super) struct Reach {
    #[command(flatten)]
    nodes: Nodes,
    /// How long to try, such as 500ms or 5s [default: 5s; a backup is waited for while its node lives]
    #[arg(long, global = true, value_parser = parse_duration, help_heading = "Reaching the store")]
    timeout: Option<Duration>,
    /// Do a write at most once, however often it is sent with this key within an hour
    #[arg(long, global = true, value_name = "KEY", help_heading = "Reaching the store")]
    idempotency_key: Option<String>,
}

impl Nodes {
    pub(crate) fn endpoints(&self, context: &Context) -> Vec<String> {
        if self.endpoints.is_empty() {
            context.config.client_addresses()
        } else {
            self.endpoints.clone()
        }
    }

    pub(crate) fn token(&self, context: &Context) -> anyhow::Result<String> {
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read the token in {}", file.display()))?;
            let token = text.trim();
            if token.is_empty() {
                bail!("{} holds no token", file.display());
            }
            return Ok(token.to_owned());
        }
        if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
            return Ok(token);
        }
        let secrets = context.secrets()?;
        let root = secrets
            .token("root")
            .context("secrets.toml has no token for root")?;
        Ok(root.expose().to_owned())
    }
}

impl Reach {
    /// No try ends at the client's usual limit, or what takes the store long could never end. The first ones are short
    /// all the same, so that a node which stands still is left for another; each that runs out gives the next twice its
    /// time, so that the longest gets about a third to a half of the whole.
    fn builder<T: Into<String>>(&self, endpoints: impl IntoIterator<Item = T>, token: &str) -> Builder {
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        KvClient::builder(endpoints)
            .token(token)
            .deadline(timeout)
            .try_time_max(timeout)
    }

    /// How long a node may be at a backup until the first of it comes, which takes the longer the larger the store is.
    pub(super) fn backup_time_max(&self) -> Duration {
        self.timeout.unwrap_or(BACKUP_TIME_MAX)
    }

    /// For what takes no idempotency key: whoever gives one relies on it.
    pub(super) fn refuse_key(&self, why: &str) -> anyhow::Result<()> {
        match self.idempotency_key {
            Some(_) => Err(Usage(format!("--idempotency-key does nothing here: {why}")).into()),
            None => Ok(()),
        }
    }
}

impl Session {
    pub(super) fn open(context: &Context, reach: Reach) -> anyhow::Result<Self> {
        let endpoints = reach.nodes.endpoints(context);
        let token = reach.nodes.token(context)?;
        let mut client = reach.builder(endpoints.iter().cloned(), &token).build()?;
        if let Some(key) = &reach.idempotency_key {
            client = client.with_idempotency_key(key)?;
        }
        Ok(Self {
            client,
            endpoints,
            reach,
            token,
            output: context.output,
        })
    }

    /// A client that asks this node and no other.
    pub(super) fn client_of(&self, address: &str) -> anyhow::Result<KvClient> {
        Ok(self.reach.builder([address], &self.token).build()?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: Reach,
    }

    #[test]
    fn a_backup_is_waited_for_unless_somebody_says_how_long_to_try() {
        let times = |arguments: &[&str]| {
            let line = [&["kv"][..], arguments].concat();
            let reach = Line::try_parse_from(line).unwrap().reach;
            let client = reach.builder(["127.0.0.1:7001"], "token").build().unwrap();
            (client.deadline(), reach.backup_time_max())
        };
        assert_eq!(times(&[]), (Duration::from_secs(5), BACKUP_TIME_MAX));
        let told = Duration::from_millis(300);
        assert_eq!(times(&["--timeout", "300ms"]), (told, told));
    }
}
