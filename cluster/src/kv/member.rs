//! `kv member` and `kv leader`: who belongs to the cluster, and who leads it.
//! Invariant: asks for one change at a time, as the store takes them.

use anyhow::bail;
use clap::{Args, Subcommand};
use kvstore_client::wire::cluster::{Cluster, NewMember};
use serde_json::json;

use super::Session;
use super::replace::Replace;

#[derive(Subcommand)]
pub(super) enum Member {
    /// List the members
    Ls,
    /// Add a node as a learner: it gets all data but has no vote
    Add(Add),
    /// Give a learner that has caught up a vote
    Promote { id: u64 },
    /// Take a node out of the cluster for good; its id is never used again
    Remove { id: u64 },
    /// Put a new node in the place of one that is dead or damaged: adds it, waits until it has everything, gives it
    /// the vote, and removes the old one
    Replace(Replace),
}

#[derive(Args)]
pub(super) struct Add {
    id: u64,
    /// host:port for clients
    #[arg(long, value_name = "ADDRESS")]
    client: String,
    /// host:port for the other nodes
    #[arg(long, value_name = "ADDRESS")]
    peer: String,
}

#[derive(Args)]
pub(super) struct Leader {
    /// Hand leadership over to this node
    #[arg(long, value_name = "ID", value_parser = node_id)]
    pub(super) to: Option<u64>,
}

/// `2`, or the name of its process, `n2`.
fn node_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('n').unwrap_or(text);
    digits
        .parse()
        .map_err(|error| format!("{text:?} is not a node ({error}): write for example 2 or n2"))
}

impl Member {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (id, done) = match self {
            Self::Ls => return list(session).await,
            Self::Replace(replace) => (replace.new, replace.run(session).await?),
            Self::Add(add) => {
                let member = NewMember {
                    id: add.id,
                    peer_address: add.peer,
                    client_address: add.client,
                };
                session.client.member_add(&member).await?;
                (
                    add.id,
                    "is a learner now; `kv member promote` gives it a vote once it has caught up",
                )
            }
            Self::Promote { id } => {
                session.client.member_promote(id).await?;
                (id, "has a vote now")
            }
            Self::Remove { id } => {
                session.client.member_remove(id).await?;
                (id, "is no longer a member")
            }
        };
        if session.output.json {
            let cluster = session.client.cluster().await?;
            return Ok(session.output.document(&cluster)?);
        }
        Ok(session.output.line(format_args!("node {id} {done}"))?)
    }
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let cluster = session.client.cluster().await?;
    if session.output.json {
        return Ok(session.output.document(&cluster)?);
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    session.output.table(
        ["ID", "NAME", "ROLE", "VOTE", "APPLIED", "LAG", "ADDRESS", "PEERS"],
        cluster.members.into_iter().map(|member| {
            [
                member.id.to_string(),
                member.name,
                member.role.to_string(),
                if member.voter { "yes" } else { "no" }.to_owned(),
                number(member.applied),
                number(member.lag),
                member.address,
                member.peer_address,
            ]
        }),
    )?;
    Ok(())
}

impl Leader {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if let Some(to) = self.to {
            session.client.leader_transfer(to).await?;
        }
        let cluster = session.client.cluster().await?;
        let Some(leader) = cluster.leader else {
            bail!("no node leads at the moment: more than half of the voters must run");
        };
        let name = name_of(&cluster, leader);
        if session.output.json {
            return Ok(session
                .output
                .document(&json!({ "leader": name, "id": leader, "term": cluster.term }))?);
        }
        Ok(session.output.line(name)?)
    }
}

fn name_of(cluster: &Cluster, id: u64) -> String {
    let member = cluster.members.iter().find(|member| member.id == id);
    member
        .map(|member| member.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("n{id}"))
}
