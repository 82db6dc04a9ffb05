//! `kv put` and `kv create`: store a value given as an argument or on stdin.
//! Invariant: stdin is stored byte for byte, and never more of it is read than a request may hold.

use std::io::{IsTerminal, stdin};

use bytes::Bytes;
use clap::Args;
use kvstore_client::PutOptions;
use kvstore_client::wire::{LeaseId, Revision};

use super::{Session, input};
use crate::output::Usage;

#[derive(Args)]
pub(super) struct Put {
    key: String,
    /// The value; `-`, or nothing at the end of a pipe, reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Bind the key to this lease, so that it vanishes with it
    #[arg(long, value_name = "ID")]
    lease: Option<LeaseId>,
    /// Only if the key does not exist
    #[arg(long, conflicts_with = "if_match")]
    if_absent: bool,
    /// Only if the key is still at this revision
    #[arg(long, value_name = "REV")]
    if_match: Option<Revision>,
}

#[derive(Args)]
pub(super) struct Create {
    /// The value; `-`, or nothing at the end of a pipe, reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// Make the key below this prefix
    #[arg(long, default_value = "")]
    prefix: String,
}

impl Put {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let value = value(self.value)?;
        let options = PutOptions {
            lease: self.lease,
            if_absent: self.if_absent,
            if_match: self.if_match,
        };
        let client = session.client.with_lasting_key();
        let put = client.put_with(&self.key, value, options).await?;
        if session.output.json {
            return Ok(session.output.document(&put)?);
        }
        let what = if put.created { "created" } else { "changed" };
        Ok(session.output.line(format_args!(
            "{what} at revision {} (version {})",
            put.revision, put.version
        ))?)
    }
}

impl Create {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = session.client.with_lasting_key();
        let created = client.create_key(&self.prefix, value(self.value)?).await?;
        if session.output.json {
            return Ok(session.output.document(&created)?);
        }
        Ok(session.output.line(created.key)?)
    }
}

fn value(argument: Option<String>) -> anyhow::Result<Bytes> {
    match argument {
        Some(value) if value != "-" => return Ok(value.into()),
        None if stdin().is_terminal() => {
            return Err(Usage("give a value, or `-` to type it in (Ctrl-D ends it)".to_owned()).into());
        }
        _ => {}
    }
    Ok(input::from_stdin("the value")?.into())
}
