//! `kv hash`: are all copies of the data equal?
//! Invariant: hashes are compared at one revision only; different hashes are a failure of the command.

use anyhow::bail;
use clap::Args;
use kvstore_client::wire::Revision;
use serde_json::json;

use super::Session;

#[derive(Args)]
pub(super) struct Hash {
    /// At this revision [default: the present one]
    #[arg(long, value_name = "REV")]
    revision: Option<Revision>,
    /// Ask every node and compare
    #[arg(long)]
    all_nodes: bool,
}

impl Hash {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.all_nodes {
            return self.compare(session).await;
        }
        let hash = session.client.hash(self.revision).await?;
        if session.output.json {
            return Ok(session.output.document(&hash)?);
        }
        Ok(session
            .output
            .line(format_args!("{} at revision {}", hash.hash, hash.revision))?)
    }

    async fn compare(&self, session: &Session) -> anyhow::Result<()> {
        let revision = match self.revision {
            Some(revision) => revision,
            None => session.client.revision().await?,
        };
        let mut hashes = Vec::new();
        for member in session.client.cluster().await?.members {
            let node = session.client_of(&member.address)?;
            hashes.push((member.name, node.hash(Some(revision)).await?.hash));
        }
        let equal = hashes.windows(2).all(|pair| pair[0].1 == pair[1].1);
        if session.output.json {
            let nodes: Vec<_> = hashes
                .iter()
                .map(|(name, hash)| json!({ "name": name, "hash": hash }))
                .collect();
            session
                .output
                .document(&json!({ "revision": revision, "equal": equal, "nodes": nodes }))?;
        } else {
            session
                .output
                .table(["NODE", "HASH"], hashes.into_iter().map(<[String; 2]>::from))?;
            let verdict = if equal { "equal" } else { "DIFFERENT" };
            session
                .output
                .line(format_args!("{verdict} at revision {revision}"))?;
        }
        if !equal {
            bail!("the nodes hold different data at revision {revision}");
        }
        Ok(())
    }
}
