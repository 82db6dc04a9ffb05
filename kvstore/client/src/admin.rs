//! What operators ask: the cluster, its members, tokens, compaction, hashes. Backups have a file of their own.
//! Changes of membership, leadership and tokens are never repeated by themselves once they may have arrived; with a key
//! of the caller's, the caller may repeat those of members and leaders. The routes of tokens take none.

use crate::call::{Request, Safety};
use crate::client::KvClient;
use crate::endpoints::Prefer;
use crate::error::Result;
use crate::path::{self, Target};
use crate::wire::Revision;
use crate::wire::cluster::{Cluster, Compaction, Hash, NewLeader, NewMember, NodeStatus};
use crate::wire::tokens::{NewToken, Rule, TokenRequest, TokenRules};
use reqwest::Method;

impl KvClient {
    /// The cluster as some node sees it, also without a leader.
    pub async fn cluster(&self) -> Result<Cluster> {
        self.call_json(Request::read("/v1/cluster", Prefer::Sticky)).await
    }

    /// The node that answers: build a client with one endpoint to ask that node.
    pub async fn status(&self) -> Result<NodeStatus> {
        self.call_json(Request::read("/v1/status", Prefer::Sticky)).await
    }

    /// Adds a learner.
    pub async fn member_add(&self, member: &NewMember) -> Result<()> {
        let request = Request::write(Method::POST, "/v1/cluster/members", self.once());
        self.call(request.json(member)?).await.map(drop)
    }

    /// Makes a learner that has caught up a voter.
    pub async fn member_promote(&self, id: u64) -> Result<()> {
        let target = format!("/v1/cluster/members/{id}/promote");
        self.call(Request::write(Method::POST, target, self.once()))
            .await
            .map(drop)
    }

    pub async fn member_remove(&self, id: u64) -> Result<()> {
        let target = format!("/v1/cluster/members/{id}");
        self.call(Request::write(Method::DELETE, target, self.once()))
            .await
            .map(drop)
    }

    pub async fn leader_transfer(&self, to: u64) -> Result<()> {
        let request = Request::write(Method::POST, "/v1/cluster/leader", self.once());
        self.call(request.json(&NewLeader { to })?).await.map(drop)
    }

    /// Drops what only reads before `revision` need. Answers up to where history is gone now: it may be further.
    pub async fn compact(&self, revision: Revision) -> Result<Revision> {
        let request = Request::write(Method::POST, "/v1/compact", self.repeatable());
        let answer: Compaction = self.call_json(request.json(&Compaction { revision })?).await?;
        Ok(answer.revision)
    }

    /// A hash over all keys alive at `revision`, or now.
    pub async fn hash(&self, revision: Option<Revision>) -> Result<Hash> {
        let target = Target::new("/v1/hash").query_if("revision", revision);
        self.call_json(Request::read(target.into_string(), Prefer::Sticky))
            .await
    }

    pub async fn tokens(&self) -> Result<Vec<TokenRules>> {
        self.call_json(Request::read("/v1/tokens", self.prefer_for_reads()))
            .await
    }

    /// Makes the token, or gives it new rules and a new secret.
    pub async fn token_put(&self, name: &str, prefixes: Vec<Rule>) -> Result<NewToken> {
        let target = format!("/v1/tokens/{}", path::segment(name));
        let request = Request::write(Method::PUT, target, Safety::Once(None));
        self.call_json(request.json(&TokenRequest { prefixes })?).await
    }

    pub async fn token_delete(&self, name: &str) -> Result<()> {
        let target = format!("/v1/tokens/{}", path::segment(name));
        self.call(Request::write(Method::DELETE, target, Safety::Once(None)))
            .await
            .map(drop)
    }
}
