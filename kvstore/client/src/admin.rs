//! What operators ask: the cluster, its members, tokens, compaction, hashes, backups.
//! Changes of membership, leadership and tokens are never repeated by themselves once they may have arrived.

use crate::attempt;
use crate::call::{Request, Safety};
use crate::client::KvClient;
use crate::endpoints::{Prefer, Tried};
use crate::error::{Error, Result, Trouble};
use crate::path::{self, Target};
use crate::verdict;
use crate::wire::Revision;
use crate::wire::cluster::{Cluster, Compaction, Hash, NewLeader, NewMember, NodeStatus};
use crate::wire::tokens::{NewToken, Rule, TokenRequest, TokenRules};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use reqwest::Method;
use tokio::time::{Duration, timeout};

/// A backup that says nothing for so long is given up: its node is paused or cut off.
const SILENCE_MAX: Duration = Duration::from_secs(30);

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
        let request = Request::write(Method::POST, "/v1/cluster/members", Safety::Once);
        self.call(request.json(member)?).await.map(drop)
    }

    /// Makes a learner that has caught up a voter.
    pub async fn member_promote(&self, id: u64) -> Result<()> {
        let target = format!("/v1/cluster/members/{id}/promote");
        self.call(Request::write(Method::POST, target, Safety::Once))
            .await
            .map(drop)
    }

    pub async fn member_remove(&self, id: u64) -> Result<()> {
        let target = format!("/v1/cluster/members/{id}");
        self.call(Request::write(Method::DELETE, target, Safety::Once))
            .await
            .map(drop)
    }

    pub async fn leader_transfer(&self, to: u64) -> Result<()> {
        let request = Request::write(Method::POST, "/v1/cluster/leader", Safety::Once);
        self.call(request.json(&NewLeader { to })?).await.map(drop)
    }

    /// Drops what only reads before `revision` need.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        let request = Request::write(Method::POST, "/v1/compact", Safety::Repeatable);
        self.call(request.json(&Compaction { revision })?).await.map(drop)
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
        let request = Request::write(Method::PUT, target, Safety::Once);
        self.call_json(request.json(&TokenRequest { prefixes })?).await
    }

    pub async fn token_delete(&self, name: &str) -> Result<()> {
        let target = format!("/v1/tokens/{}", path::segment(name));
        self.call(Request::write(Method::DELETE, target, Safety::Once))
            .await
            .map(drop)
    }

    /// A consistent backup, piece by piece. A stream that ends in an error is no backup.
    pub async fn snapshot(&self) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let request = Request::read("/v1/snapshot", Prefer::Sticky);
        let response = self.open(request, &mut Tried::default()).await?;
        Ok(unless_silent(response.bytes_stream().boxed(), SILENCE_MAX))
    }

    /// The beginning of a long answer: one attempt, bounded by the deadline up to the headers.
    pub(crate) async fn open(&self, request: Request, tried: &mut Tried) -> Result<reqwest::Response> {
        let endpoints = &self.shared.endpoints;
        let request = self.shared.finish(request);
        let endpoint = endpoints.choose(request.prefer, tried);
        let outgoing = attempt::outgoing(&endpoint.base, &request);
        let unavailable = |source| {
            endpoints.failed(&endpoint);
            Err(Error::Unavailable { source })
        };
        let limit = self.deadline().min(self.shared.try_time_max);
        let mut response = match timeout(limit, self.shared.http.execute(outgoing)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return unavailable(Trouble::Connection(error)),
            Err(_elapsed) => return unavailable(Trouble::Timeout),
        };
        endpoint.answered();
        let status = response.status();
        if status.is_success() {
            endpoints.served(&endpoint);
            return Ok(response);
        }
        let body = match timeout(limit, attempt::body(&mut response)).await {
            Ok(Ok(body)) => body,
            Ok(Err(trouble)) => return unavailable(trouble),
            Err(_elapsed) => return unavailable(Trouble::Timeout),
        };
        let problem = verdict::problem_of(status, &body);
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Error::Unavailable {
                source: Trouble::Problem(problem),
            });
        }
        Err(verdict::error_of(problem, Some(response.headers())))
    }
}

/// Ends in an error where nothing comes for so long.
fn unless_silent(
    pieces: impl Stream<Item = reqwest::Result<Bytes>> + Send + Unpin,
    silence_max: Duration,
) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        let trouble = match timeout(silence_max, pieces.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(piece))) => return Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Trouble::Connection(error),
            Err(_elapsed) => Trouble::Timeout,
        };
        Some((Err(Error::Unavailable { source: trouble }), None))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_backup_that_falls_silent_is_given_up() {
        let patience = Duration::from_secs(10);
        let said = stream::iter([Ok(Bytes::from_static(b"piece"))]);
        let said = said.chain(stream::pending());
        let mut backup = pin!(unless_silent(said, Duration::from_millis(20)));
        let first = backup.next().await.expect("what was said comes through");
        assert_eq!(first.unwrap(), "piece");
        let end = timeout(patience, backup.next()).await.expect("it is given up");
        assert!(
            matches!(
                end,
                Some(Err(Error::Unavailable {
                    source: Trouble::Timeout
                }))
            ),
            "{end:?}"
        );
        assert!(backup.next().await.is_none());
        // One that is whole ends as one that is.
        let whole = stream::iter([Ok(Bytes::from_static(b"piece"))]);
        let whole: Vec<_> = unless_silent(whole, patience).collect().await;
        assert!(matches!(whole.as_slice(), [Ok(_)]), "{whole:?}");
    }
}
