//! `kv lease`: grant, keep alive, look at and end leases; `hold` has a file of its own.
//! Invariant: a lease that is gone is a failure with a word of its own, that programs can branch on.

use std::time::Duration;

use clap::Subcommand;
use kvstore_client::wire::LeaseId;
use kvstore_client::wire::lease::LeaseStatus;
use serde_json::json;

use super::hold::Hold;
use super::show::parse_duration;
use super::{Session, show};
use crate::output::Failure;

#[derive(Subcommand)]
pub(super) enum Lease {
    /// Make a lease and print its id
    Grant {
        /// Such as 500ms, 5s, 1h
        #[arg(value_parser = parse_duration)]
        ttl: Duration,
    },
    /// Give a lease its full time again
    Keepalive { id: LeaseId },
    /// Show a lease and its keys
    Get { id: LeaseId },
    /// List all leases
    Ls,
    /// End a lease and delete its keys
    Revoke { id: LeaseId },
    /// Keep a lease for as long as a command runs; its id is in $`MENAGERIE_LEASE`
    Hold(Hold),
}

impl Lease {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let output = session.output;
        match self {
            Self::Grant { ttl } => {
                let lease = session.client.with_lasting_key().lease_grant(ttl).await?;
                if output.json {
                    output.document(&lease)?;
                } else {
                    output.line(lease.id)?;
                }
            }
            Self::Keepalive { id } => {
                let lease = session.client.lease_keepalive(id).await?;
                if output.json {
                    output.document(&lease)?;
                } else {
                    output.line(format_args!(
                        "lease {id} lives for another {}",
                        show::duration(lease.ttl_ms)
                    ))?;
                }
            }
            Self::Get { id } => {
                let Some(lease) = session.client.lease_get(id).await? else {
                    return Err(gone(id));
                };
                if output.json {
                    output.document(&lease)?;
                } else {
                    table(session, vec![lease])?;
                }
            }
            Self::Ls => {
                let leases = session.client.lease_list().await?;
                if output.json {
                    output.document(&leases)?;
                } else {
                    table(session, leases)?;
                }
            }
            Self::Revoke { id } => {
                if !session.client.with_lasting_key().lease_revoke(id).await? {
                    return Err(gone(id));
                }
                if output.json {
                    output.document(&json!({ "id": id, "revoked": true }))?;
                } else {
                    output.line(format_args!("lease {id} is ended, its keys are deleted"))?;
                }
            }
            Self::Hold(hold) => hold.run(session).await?,
        }
        Ok(())
    }
}

fn gone(id: LeaseId) -> anyhow::Error {
    let text = format!("there is no lease {id}, or no longer");
    Failure {
        text,
        code: "lease-not-found".to_owned(),
    }
    .into()
}

fn table(session: &Session, leases: Vec<LeaseStatus>) -> std::io::Result<()> {
    session.output.table(
        ["LEASE", "TIME", "REMAINING", "KEYS"],
        leases.into_iter().map(|lease| {
            let keys: Vec<String> = lease.keys.iter().map(|key| show::key(key)).collect();
            let (ttl, left) = (show::duration(lease.ttl_ms), show::duration(lease.remaining_ms));
            [lease.id.to_string(), ttl, left, keys.join(" ")]
        }),
    )
}
