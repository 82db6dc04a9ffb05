//! `kv del`: delete one key, or everything below a prefix.
//! Invariant: on a terminal, a prefix is deleted only after a yes.

use anyhow::bail;
use clap::Args;
use kvstore_client::RangeRequest;
use kvstore_client::wire::Revision;

use super::Session;
use crate::output::Usage;

#[derive(Args)]
pub(super) struct Del {
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// Delete all keys that begin with this
    #[arg(long)]
    prefix: Option<String>,
    /// Only if the key is still at this revision
    #[arg(long, value_name = "REV", conflicts_with = "prefix")]
    if_match: Option<Revision>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Del {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let deleted = match (&self.key, &self.prefix) {
            (Some(key), _) => session.client.delete_with(key, self.if_match).await?,
            (None, Some(prefix)) => {
                self.ask(session, prefix).await?;
                session.client.delete_prefix(prefix).await?
            }
            (None, None) => return Err(Usage("give a key or --prefix".to_owned()).into()),
        };
        if session.output.json {
            return Ok(session.output.document(&deleted)?);
        }
        let keys = if deleted.deleted == 1 { "key" } else { "keys" };
        Ok(session
            .output
            .line(format_args!("{} {keys} deleted", deleted.deleted))?)
    }

    async fn ask(&self, session: &Session, prefix: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        let range = RangeRequest {
            count_only: true,
            ..RangeRequest::prefix(prefix)
        };
        let count = session.client.range(range).await?.count;
        match session
            .output
            .confirm(&format!("Delete {count} keys below {prefix:?}?"))?
        {
            // A script has said what it wants; only a person at a terminal may have mistyped it.
            Some(true) | None => Ok(()),
            Some(false) => bail!("nothing deleted"),
        }
    }
}
