//! `kv member replace OLD NEW`: a new node in the place of one that is dead or damaged.
//! Invariant: each step may have been done before, so that the command can be run again after it was broken off; the
//! old node goes first only where the new one is to be reached at its address, and if the new one is then not taken,
//! what the old one no longer tells is told.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kvstore_client::wire::cluster::{Cluster, Member, NewMember, Role};

use super::{Session, explain};
use crate::output::{Failure, Usage};

/// A week, in seconds.
const WAIT_MAX: u64 = 7 * 24 * 60 * 60;
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
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=WAIT_MAX))]
    wait: u64,
}

impl Replace {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<&'static str> {
        session
            .reach
            .refuse_key("each step may have been done before, so run the command again without it")?;
        if self.new == self.old {
            bail!(Usage(format!(
                "the new node needs an id that was never used: {} stands for the disk that goes",
                self.old
            )));
        }
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
        if same_place && let Err(error) = self.remove_old(session).await {
            return Err(error.context(format!(
                "if node {} is gone all the same, run this again with --client {} --peer {}",
                self.old, new.client_address, new.peer_address
            )));
        }
        if find(&cluster, self.new).is_none()
            && let Err(error) = session.client.member_add(&new).await
        {
            let code = error.code().to_owned();
            let mut text = explain::explain(error.into(), &session.endpoints).to_string();
            if same_place {
                text = format!("{text}\n{}", self.how_to_go_on(&new));
            }
            return Err(Failure { text, code }.into());
        }
        if find(&cluster, self.new).is_none_or(|member| !member.voter) {
            session.output.note(self.how_to_start(&new));
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

    /// Before the new node was added, and after the old one, at whose address it is to be, was removed.
    fn how_to_go_on(&self, new: &NewMember) -> String {
        format!(
            "node {} is removed and node {} may not be added yet: run this again with --client {} --peer {}, and with an id that \
             was never used if that is what is wrong",
            self.old, self.new, new.client_address, new.peer_address
        )
    }

    fn how_to_start(&self, new: &NewMember) -> String {
        format!(
            "In cluster.toml, on every machine, put node {new_id} in the place of node {old_id}: id = {new_id}, client = \
             \"{}\", peer = \"{}\". Then start it there, with an empty folder: menagerie node --id {new_id}",
            new.client_address,
            new.peer_address,
            new_id = self.new,
            old_id = self.old,
        )
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
        let progress = session
            .output
            .spinner(format!("waiting for node {} at {}", self.new, new.peer_address));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_is_told_whole() {
        let replace = Replace {
            old: 3,
            new: 4,
            client: None,
            peer: None,
            wait: 600,
        };
        let new = NewMember {
            id: 4,
            client_address: "host:7003".to_owned(),
            peer_address: "host:7103".to_owned(),
        };
        // Without a member 3, this is all that says where the new one is to be.
        let nobody = Cluster {
            cluster_id: String::new(),
            leader: None,
            term: 0,
            members: Vec::new(),
        };
        assert!(replace.place(&nobody, None).is_err());
        let told = replace.how_to_go_on(&new);
        assert!(told.contains("--client host:7003 --peer host:7103"), "{told}");
        let told = replace.how_to_start(&new);
        for part in [
            "id = 4, client = \"host:7003\", peer = \"host:7103\"",
            "in the place of node 3",
            "menagerie node --id 4",
        ] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
    }
}
