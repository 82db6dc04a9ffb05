//! `kv get`: the value of a key, verbatim, so that it can be piped; what is known about it on request.
//! Invariant: into a pipe or a file goes exactly what was stored, no newline more.

use anyhow::anyhow;
use clap::Args;
use kvstore_client::wire::Revision;
use kvstore_client::wire::level::Consistency;
use kvstore_client::{Read, ReadOptions};

use super::{Session, show};
use crate::output::{Failure, stdout_is_terminal};

#[derive(Args)]
pub(super) struct Get {
    key: String,
    #[command(flatten)]
    level: Level,
    /// Also tell what is known about the key, on stderr
    #[arg(short, long)]
    verbose: bool,
    /// The bytes as they are, also on a terminal
    #[arg(long)]
    raw: bool,
}

/// How a read is to be served.
#[derive(Args)]
pub(super) struct Level {
    /// Read the past, as it was at this revision
    #[arg(long, value_name = "REV")]
    revision: Option<Revision>,
    /// linearizable, local, bounded:MS or `at_least:REV`
    #[arg(long, default_value = "linearizable", value_name = "LEVEL")]
    consistency: Consistency,
}

impl Level {
    pub(super) fn options(&self) -> ReadOptions {
        ReadOptions {
            consistency: self.consistency,
            revision: self.revision,
        }
    }
}

impl Get {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let read = session.client.read(&self.key, self.level.options()).await?;
        let Some(kv) = &read.kv else {
            let text = format!("there is no key {:?}", self.key);
            return Err(Failure {
                text,
                code: "key-not-found".to_owned(),
            }
            .into());
        };
        if session.output.json {
            return document(session, &read);
        }
        if self.verbose {
            session.output.note(format_args!(
                "revision {}, created at {}, version {}, lease {}; read at {} ({})",
                kv.mod_revision,
                kv.create_revision,
                kv.version,
                show::lease(kv.lease),
                read.revision,
                read.consistency
            ));
        }
        let value = kv.bytes();
        if self.raw || !stdout_is_terminal() {
            return Ok(session.output.bytes(&value)?);
        }
        match std::str::from_utf8(&value) {
            // Lines are fine on a terminal, its control sequences are not.
            Ok(text)
                if text
                    .chars()
                    .all(|letter| !letter.is_control() || "\n\t".contains(letter)) =>
            {
                Ok(session.output.line(text.strip_suffix('\n').unwrap_or(text))?)
            }
            _ => Ok(session.output.line(show::value(&value))?),
        }
    }
}

fn document(session: &Session, read: &Read) -> anyhow::Result<()> {
    let mut document = serde_json::to_value(&read.kv)?;
    let members = document
        .as_object_mut()
        .ok_or_else(|| anyhow!("a key is an object"))?;
    members.insert("revision".to_owned(), read.revision.into());
    members.insert("consistency".to_owned(), read.consistency.to_string().into());
    Ok(session.output.document(&document)?)
}
