//! The answers kept for idempotency keys, for who keeps a whole copy of the store.
//!
//! Invariant: they may tell what any key held, so only who may read all keys gets them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::mirror::{KeptAnswer, KeptAnswers};
use service::problem::{Problem, Result};

use super::params::{Params, malformed};
use super::{Shared, reply};
use crate::command::Reply;
use crate::machine::state::{Kept, KeptId};

/// Of one page.
const BYTES_MAX: u64 = 1 << 20;

/// `now_ms` is what the cluster's clock says.
pub(super) fn wire(now_ms: u64, id: KeptId, kept: Kept) -> KeptAnswer {
    let told: Reply = postcard::from_bytes(&kept.reply).expect("a kept answer was encoded by this code");
    KeptAnswer {
        owner: id.owner,
        key: id.key,
        revision: told.revision,
        expires_ms: kept.expires_ms,
        left_ms: Some(kept.expires_ms.saturating_sub(now_ms)),
        fingerprint: Bytes::copy_from_slice(&kept.fingerprint),
        reply: kept.reply,
    }
}

pub(super) async fn list(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let params = Params::of(&parts.uri);
    let after = match (params.text("owner")?, params.text("key")?) {
        (None, None) => None,
        (Some(owner), Some(key)) => Some(KeptId {
            owner: owner.into_owned(),
            key: key.into_owned(),
        }),
        _ => {
            return Err(malformed(
                "The parameters `owner` and `key` name the last answer of the page before, together.",
            ));
        }
    };
    let level = params.level()?;
    let point = api.read_point(level).await?;
    caller.may_read_prefix(&api, b"")?;
    let generation = Arc::clone(&point.generation);
    let machine = Arc::clone(api.store.machine());
    // Finding them, and a MiB of JSON, would hold up everything else on this thread.
    let reading = api.store.edge().spawn_blocking("answers", move || {
        let found = generation.db().kept_after(after.as_ref(), BYTES_MAX);
        page(found, machine.now_ms())
    });
    let found = reading
        .await
        .map_err(|error| Problem::internal("list the kept answers", error))?;
    if api.is_newer(&point, found.newest).await? {
        caller.may_read_prefix(&api, b"")?;
    }
    let mut response = reply::json_text(StatusCode::OK, found.text);
    reply::stamp_read(point.revision, level, response.headers_mut());
    Ok(response)
}

/// A page, and the highest revision that it tells of.
struct Found {
    newest: u64,
    text: Vec<u8>,
}

fn page(found: Vec<(KeptId, Kept)>, now_ms: u64) -> Found {
    let more = found.iter().map(|(id, kept)| kept.bytes(id)).sum::<u64>() >= BYTES_MAX;
    let answers = found.into_iter().map(|(id, kept)| wire(now_ms, id, kept));
    let answers: Vec<KeptAnswer> = answers.collect();
    let newest = answers.iter().map(|answer| answer.revision).max();
    Found {
        newest: newest.unwrap_or(0),
        text: reply::text(&KeptAnswers { answers, more }),
    }
}
