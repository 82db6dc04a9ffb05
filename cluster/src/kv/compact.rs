//! `kv compact`: gives up the past before a revision, and with it the space it takes.

use clap::Args;
use kvstore_client::wire::Revision;
use serde_json::json;

use super::Session;

#[derive(Args)]
pub(super) struct Compact {
    /// Reads at this revision still work afterwards, earlier ones do not
    revision: Revision,
}

impl Compact {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        // More than was asked for may be gone already.
        let revision = session.client.compact(self.revision).await?;
        if session.output.json {
            return Ok(session.output.document(&json!({ "revision": revision }))?);
        }
        Ok(session
            .output
            .line(format_args!("history before revision {revision} is dropped"))?)
    }
}
