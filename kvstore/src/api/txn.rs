//! `POST /v1/txn`: many operations as one, under conditions.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use kvstore_client::wire::txn::{Branch as WireBranch, OpResult as WireResult, TxnAnswer};
use service::problem::Result;

use super::keys::unexpected;
use super::once::once;
use super::range::{row, row_bytes};
use super::txn_parse::parse;
use super::{Shared, large, reply};
use crate::command::{Action, Answer, Branch, OpResult};

pub(super) async fn run(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let document = api.json(&parts.headers, &body)?;
    let txn = parse(&document, &api.limits)?;
    let has_failed = txn.failed.is_some();
    let mut reply = api.delete(&caller, Action::Txn(txn), once).await?;
    let Answer::Txn {
        branch,
        failed_op,
        results,
    } = &mut reply.answer
    else {
        unexpected(&reply)
    };
    let bytes = results.iter().map(bytes).sum();
    let answer = TxnAnswer {
        revision: reply.revision,
        succeeded: *branch == Branch::Then,
        branch: match branch {
            Branch::Then => WireBranch::Then,
            Branch::Failed => WireBranch::Failed,
            // It is the branch that was tried last; that `results` is empty says that it failed as well.
            Branch::Nothing if has_failed => WireBranch::Failed,
            Branch::Nothing | Branch::Else => WireBranch::Else,
        },
        failed_op: *failed_op,
        results: std::mem::take(results).into_iter().map(result).collect(),
    };
    let text = large::written(api.store.edge(), bytes, move || reply::text(&answer)).await;
    // It has been done, but whoever lost the answer to it can say no more than this.
    let text = text.map_err(|_lost| reply::outcome_unknown())?;
    Ok(api.written_text(StatusCode::OK, &reply, text))
}

/// Roughly, as JSON.
fn bytes(result: &OpResult) -> usize {
    match result {
        OpResult::Got { rows, .. } => rows.iter().map(|(key, record)| row_bytes(key, record)).sum(),
        OpResult::Put { .. } | OpResult::Deleted { .. } | OpResult::Added { .. } => 0,
    }
}

fn result(result: OpResult) -> WireResult {
    match result {
        OpResult::Put { version } => WireResult::Put { version },
        OpResult::Deleted { count } => WireResult::Delete { deleted: count },
        OpResult::Got { rows, count } => {
            let kvs = rows
                .into_iter()
                .map(|(key, record)| row(&key, record, true))
                .collect();
            WireResult::Get { kvs, count }
        }
        OpResult::Added { value } => WireResult::Add { value },
    }
}
