//! The proof of the ledger, and how this process is.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use kvstore_client::wire::Revision;
use payment_client::wire::LedgerCheck;
use service::problem::{self, Problem};
use service::query::Query;

use super::reading::json;
use super::{App, Result, Shared};

/// A check reads page after page; each of them may take this long.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);

/// `GET /v1/ledger/check`
pub(super) async fn check(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    app.caller(&headers)?;
    let revision = Query::of(&uri).number("revision")?;
    let check = proof(&app, revision).await?;
    let body = serde_json::to_string(&check).expect("text keys");
    Ok(json(StatusCode::OK, body))
}

/// Of few at a time, and in a time of its own: it reads the whole ledger.
pub(super) async fn proof(app: &App, revision: Option<Revision>) -> Result<LedgerCheck> {
    let Ok(_room) = app.checks.try_acquire() else {
        return Err(Problem::new(
            problem::OVERLOADED,
            "The ledger is being checked already; each check reads the whole of it.",
        )
        .retry_after_ms(1000));
    };
    let time = Duration::from_millis(app.config.check_ms_max);
    let ledger = app.ledger.with_deadline(PAGE_DEADLINE);
    tokio::time::timeout(time, ledger.check(revision))
        .await
        .unwrap_or_else(|_elapsed| {
            Err(Problem::new(
                problem::TIMEOUT,
                "The ledger is too large to be checked in this time.",
            ))
        })
}

/// `GET /readyz`
pub(super) async fn ready(State(app): State<Shared>) -> Result<&'static str> {
    app.ledger.reach().await?;
    Ok("ready\n")
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    app.caller(&headers)?;
    Ok(app.metrics.response())
}
