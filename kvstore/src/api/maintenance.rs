//! The node and its history: status, revision, compaction, hash, metrics, readiness.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kvstore_client::wire::cluster::{Compaction, Hash, NodeStatus};
use kvstore_client::wire::kv::RevisionAnswer;
use serde::Serialize;
use serde_json::Value;
use service::config::LimitsConfig;
use service::planted::{Bug, is_planted};
use service::problem::{self, Problem, Result};

use super::cluster::wire_role;
use super::fields::Fields;
use super::keys::unexpected;
use super::once::once;
use super::params::Params;
use super::{Api, Shared, reply};
use crate::command::{Action, Answer};
use crate::store::Level;

/// How old the leader's last confirmed majority may be for a node that is ready.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);

/// The cheapest linearizable read.
pub(super) async fn revision(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let level = Params::of(&parts.uri).level()?;
    let point = api.read_point(level).await?;
    caller.present(&api)?;
    // What was acknowledged is on the mirrors, so there is nothing to wait for; unless nobody knows yet how much that is.
    let revision = match point.mirrored {
        Some(0) => {
            api.may_show(&point, point.revision).await?;
            point.revision
        }
        _ if is_planted(Bug::RevisionLags) => point.revision.saturating_sub(50),
        mirrored => point.revision.min(mirrored.unwrap_or(u64::MAX)),
    };
    Ok(reply::found(revision, level, &RevisionAnswer { revision }))
}

pub(super) async fn hash(State(api): State<Shared>, request: Request) -> Result<Response> {
    api.in_time(hash_of(&api, request)).await
}

async fn hash_of(api: &Api, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let params = Params::of(&parts.uri);
    let (level, at) = (params.level()?, params.revision()?);
    let point = api.read_point(level).await?;
    caller.present(api)?;
    let (revision, hash) = api
        .store
        .hash(point.clone(), at)
        .await
        .map_err(reply::read_problem)?;
    api.may_show(&point, revision).await?;
    Ok(reply::found(
        revision,
        level,
        &Hash {
            revision,
            hash: format!("{hash:032x}"),
        },
    ))
}

/// The revision up to which history may go.
pub(super) fn parse_compaction(document: &Value, limits: &LimitsConfig) -> Result<u64> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let revision = fields.number(root, "", "revision");
    fields.finish()?;
    Ok(revision)
}

pub(super) async fn compact(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    api.root_only(&caller)?;
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let document = api.json(&parts.headers, &body)?;
    let revision = parse_compaction(&document, &api.limits)?;
    let reply = api.write(&caller, Action::Compact { revision }, once).await?;
    let Answer::Compacted { revision } = reply.answer else {
        unexpected(&reply)
    };
    Ok(api.written(StatusCode::OK, &reply, &Compaction { revision }))
}

#[derive(Serialize)]
struct StatusAnswer {
    #[serde(flatten)]
    node: NodeStatus,
    cluster_id: Option<String>,
    keys: u64,
}

pub(super) async fn status(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let asked = Params::of(&parts.uri).level()?;
    let level = api.own_level(asked).await?;
    caller.present(&api)?;
    let view = api.store.status();
    let node = NodeStatus {
        id: view.id,
        name: view.name,
        role: wire_role(view.role),
        term: view.term,
        leader: view.leader,
        last_log: view.last_log.unwrap_or(0),
        committed: view.committed.unwrap_or(0),
        applied: view.applied.unwrap_or(0),
        revision: view.revision,
        compacted_revision: view.compacted_revision,
        db_bytes: view.db_bytes,
        uptime_ms: view.uptime_ms,
        version: view.version.to_owned(),
        state_hash: format!("{:032x}", view.state_hash),
    };
    let answer = StatusAnswer {
        node,
        cluster_id: view.cluster_id,
        keys: view.keys,
    };
    Ok(reply::found(answer.node.revision, level, &answer))
}

pub(super) async fn metrics(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    api.caller(&parts.headers).await?;
    api.store.gauge();
    Ok(api.store.metrics().registry.response())
}

/// A leader that is known may be gone: only a majority that confirmed it lately makes a node ready.
pub(super) async fn ready(State(api): State<Shared>) -> Result<Response> {
    let not_ready = |reason: String| Problem::new(problem::NOT_READY, reason);
    api.store.ready().map_err(not_ready)?;
    match api.store.read_point(Level::Bounded(CONFIRMED_WITHIN)).await {
        Ok(_) => Ok("ready\n".into_response()),
        Err(error) => {
            tracing::debug!(%error, "not ready: no majority has confirmed a leader lately");
            Err(not_ready("no majority has confirmed a leader lately".to_owned()))
        }
    }
}
