//! `kv member replace OLD NEW`: a new node in the place of one that is dead or damaged.
//! Invariant: each step may have been done before, so that the command can be run again after it was broken off; the
//! old node goes first only where the new one is to be reached at its address.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kvstore_client::wire::cluster::{Cluster, Member, NewMember, Role};

use super::Session;

const POLL_EVERY: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(super) struct Replace {
    /// The id of the node that goes
    old: u64,
    /// The id of the new node: one that was never used, on an empty folder
    pub(super) new: u64,
    /// host:port for clients [default: that of the old node]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// host:port for the other nodes [default: that of the old node]
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// How long the new node may take to appear and to get everything
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait: u64,
}

impl Replace {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<&'static str> {
        session.refuse_key("each step may have been done before, so run the command again as it is")?;
        let cluster = session.client.cluster().await?;
        let old = find(&cluster, self.old);
        let new = self.place(&cluster, old)?;
        // A node at the same address cannot be a member beside the old one.
        let same_place = old.is_some_and(|old| old.peer_address == new.peer_address);
        if same_place && old.is_some_and(|old| old.role != Role::Unreachable) {
            bail!(
                "node {} still answers at {}: stop it, or give the new node another address with --peer and --client",
                self.old,
                new.peer_address
            );
        }
        if same_place {
            self.remove_old(session).await?;
        }
        if find(&cluster, self.new).is_none() {
            session
                .client
                .member_add(&new)
                .await
                .context("add the new node")?;
        }
        self.promote_new(session, &new).await?;
        if !same_place && old.is_some() {
            self.remove_old(session).await?;
        }
        Ok("has taken its place: it has everything, and a vote")
    }

    fn place(&self, cluster: &Cluster, old: Option<&Member>) -> anyhow::Result<NewMember> {
        let known = find(cluster, self.new).or(old);
        let client = self
            .client
            .clone()
            .or_else(|| known.map(|member| member.address.clone()));
        let peer = self
            .peer
            .clone()
            .or_else(|| known.map(|member| member.peer_address.clone()));
        match (client, peer) {
            (Some(client_address), Some(peer_address)) => Ok(NewMember {
                id: self.new,
                peer_address,
                client_address,
            }),
            _ => bail!(
                "node {} is no member: say where the new one is, with --peer and --client",
                self.old
            ),
        }
    }

    async fn remove_old(&self, session: &Session) -> anyhow::Result<()> {
        match session.client.member_remove(self.old).await {
            Err(error) if error.code() == "member-not-found" => Ok(()),
            done => done.with_context(|| format!("remove node {}", self.old)),
        }
    }

    /// Waits until the new node runs and has caught up; the store refuses its vote until then.
    async fn promote_new(&self, session: &Session, new: &NewMember) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.wait);
        let progress = session.output.spinner(format!(
            "waiting for node {} at {}: start it there with `menagerie node --id {}`",
            self.new, new.peer_address, self.new
        ));
        loop {
            let refused = match session.client.member_promote(self.new).await {
                Ok(()) => break,
                Err(refused) => refused,
            };
            if tokio::time::Instant::now() > deadline {
                return Err(refused).with_context(|| format!("give node {} a vote", self.new));
            }
            if let Ok(cluster) = session.client.cluster().await
                && let Some(Member {
                    lag: Some(lag), role, ..
                }) = find(&cluster, self.new)
                && *role != Role::Unreachable
            {
                progress.set_message(format!("node {} lacks {lag} entries", self.new));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        progress.finish_and_clear();
        Ok(())
    }
}

fn find(cluster: &Cluster, id: u64) -> Option<&Member> {
    cluster.members.iter().find(|member| member.id == id)
}
