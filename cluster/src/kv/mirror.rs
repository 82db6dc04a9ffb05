//! `kv mirror`: the mirrors that the store knows of, and taking one out.
//! Invariant: shows the word of the leader, who alone waits for them.

use clap::Subcommand;

use super::Session;

#[derive(Subcommand)]
pub(super) enum Mirror {
    /// List the mirrors and how far they are
    Ls,
    /// Take a mirror out: no write waits for it any more, until it announces itself again
    Delete { name: String },
}

impl Mirror {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Ls => list(session).await,
            Self::Delete { name } => {
                session.client.mirror_delete(&name).await?;
                if session.output.json {
                    return Ok(session.output.document(&serde_json::json!({ "deleted": name }))?);
                }
                Ok(session
                    .output
                    .line(format_args!("nobody waits for the mirror {name} any more"))?)
            }
        }
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let mirrors = session.client.mirrors().await?;
    if session.output.json {
        return Ok(session.output.document(&mirrors)?);
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    session.output.table(
        [
            "NAME",
            "MODE",
            "ON LOSS",
            "STATE",
            "REVISION",
            "LAG",
            "HEARD (MS AGO)",
        ],
        mirrors.into_iter().map(|mirror| {
            [
                mirror.name,
                mirror.mode,
                mirror.on_loss,
                mirror.state,
                number(mirror.acknowledged_revision),
                number(mirror.lag_revisions),
                number(mirror.heard_ms_ago),
            ]
        }),
    )?;
    Ok(())
}
