//! The proof of the ledger, the past, and how this process is.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use service::problem::Result;
use service::query::{self, Query};

use super::{Shared, past};
use crate::consensus::history::Cursor;
use crate::process::trouble;
use crate::wire::{json, text};

const PAGE_DEFAULT: u64 = 50;
const PAGE_MAX: u64 = 200;

/// `GET /ledger`
pub(super) async fn ledger(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let revision = Query::of(&uri).number("revision")?;
    Ok(json(StatusCode::OK, &app.bank.ledger(revision).await?))
}

/// `GET /history`
pub(super) async fn history(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let query = Query::of(&uri);
    let limit = query.number("limit")?.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("The parameter `limit` is a number from 1 to {PAGE_MAX}.");
        return Err(query::malformed(detail));
    }
    let model = query.text("model")?;
    let cursor = match query.text("cursor")? {
        Some(cursor) => Cursor::parse(&cursor)?,
        None => Cursor::default(),
    };
    let limit_rows = usize::try_from(limit).unwrap_or(1);
    let page = app.bank.history(cursor, limit_rows).await?;
    let body = past::history(&page.rows, model.as_deref());
    let mut response = text(StatusCode::OK, body);
    if let Some(next) = page.next {
        // As it was asked, so that what was escaped stays so.
        let link = format!("<{}>; rel=\"next\"", query::next_page(&uri, &next));
        if let Ok(link) = link.try_into() {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

/// `GET /readyz`
pub(super) async fn ready(State(app): State<Shared>) -> Result<&'static str> {
    app.settler.check()?;
    let client = app.bank.client.with_deadline(Duration::from_secs(1));
    client.revision().await.map_err(trouble)?;
    app.bank.snapshot(Vec::new()).await?;
    Ok("ready\n")
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    app.somebody(&headers)?;
    Ok(app.metrics.response())
}
