//! `kv del`: delete one key, or everything below a prefix.
//! Invariant: on a terminal, a prefix is deleted only after a yes.

use anyhow::bail;
use clap::Args;
use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::Deleted;
use kvstore_client::wire::txn::{Op, OpResult};
use kvstore_client::{KvClient, RangeRequest, Txn};

use super::{Session, explain};
use crate::output::Usage;

#[derive(Args)]
pub(super) struct Del {
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// Delete all keys that begin with this
    #[arg(long)]
    prefix: Option<String>,
    /// One transaction after the other, for more keys than one may delete; whoever reads meanwhile sees some gone
    #[arg(long, requires = "prefix")]
    in_parts: bool,
    /// Only if the key is still at this revision
    #[arg(long, value_name = "REV", conflicts_with = "prefix")]
    if_match: Option<Revision>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Del {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.in_parts {
            session
                .reach
                .refuse_key("each part is a transaction of its own, so run the command again without it")?;
        }
        let once = session.client.with_lasting_key();
        let deleted = match (&self.key, &self.prefix) {
            (Some(key), _) => once.delete_with(key, self.if_match).await?,
            (None, Some(prefix)) => {
                self.ask(session, prefix).await?;
                if self.in_parts {
                    delete_in_parts(&session.client, prefix).await?
                } else {
                    once.delete_prefix(prefix).await?
                }
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

/// As many operations as a transaction takes by default.
const PART: u32 = 128;

async fn delete_in_parts(client: &KvClient, prefix: &str) -> anyhow::Result<Deleted> {
    let mut all = Deleted {
        revision: client.revision().await?,
        deleted: 0,
    };
    loop {
        let range = RangeRequest {
            limit: Some(PART),
            keys_only: true,
            uncounted: true,
            ..RangeRequest::prefix(prefix)
        };
        let page = client.range(range).await?;
        if page.kvs.is_empty() {
            return Ok(all);
        }
        let keys = page.kvs.iter().map(|row| Op::delete(&row.key));
        let deleting = client.txn(keys.fold(Txn::new(), Txn::then)).await;
        let answer = deleting.map_err(explain::keyless)?;
        all.revision = answer.revision;
        let deleted = answer.results.iter().map(|result| match result {
            OpResult::Delete { deleted } => *deleted,
            _ => 0,
        });
        all.deleted += deleted.sum::<u64>();
    }
}
