//! `kv lease`: grant, keep alive, look at and end leases; `hold` keeps one for as long as a command runs.
//! Invariant: a command under `hold` never outlives its lease: when the lease is lost, the command is ended,
//! since another may already have taken over what the lease stood for.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use kvstore_client::wire::LeaseId;
use kvstore_client::wire::lease::LeaseStatus;
use serde_json::json;
use tokio::process::Command;

use super::show::parse_duration;
use super::{Session, show};
use crate::output::Failure;

/// The id of the lease, for the command that runs under it.
const LEASE_VARIABLE: &str = "MENAGERIE_LEASE";

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

#[derive(Args)]
pub(super) struct Hold {
    /// Such as 5s
    #[arg(value_parser = parse_duration)]
    ttl: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Lease {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let output = session.output;
        match self {
            Self::Grant { ttl } => {
                let lease = session.client.lease_grant(ttl).await?;
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
                if !session.client.lease_revoke(id).await? {
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

impl Hold {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let lease = session.client.lease_keep(self.ttl).await?;
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut child = Command::new(program)
            .args(arguments)
            .env(LEASE_VARIABLE, lease.id().to_string())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {program:?}"))?;
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = lease.lost() => None,
        };
        let Some(ended) = ended else {
            child.kill().await.context("end the command")?;
            bail!("the lease {} was lost, so {program:?} was ended", lease.id());
        };
        let ended = ended.context("wait for the command")?;
        lease.release().await?;
        if !ended.success() {
            bail!("{program:?} failed: {ended}");
        }
        Ok(())
    }
}
