//! The proof of the ledger, and how this process is.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use service::problem::{self, Problem};
use service::query::Query;

use super::reading::json;
use super::{Result, Shared};

/// A check reads page after page; each of them may take this long.
const PAGE_DEADLINE: Duration = Duration::from_secs(10);

/// `GET /v1/ledger/check`
pub(super) async fn check(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    app.caller(&headers)?;
    let revision = Query::of(&uri).number("revision")?;
    let Ok(_room) = app.checks.try_acquire() else {
        return Err(Problem::new(
            problem::OVERLOADED,
            "The ledger is being checked already; each check reads the whole of it.",
        )
        .retry_after_ms(1000));
    };
    let time = Duration::from_millis(app.config.check_ms_max);
    let ledger = app.ledger.with_deadline(PAGE_DEADLINE);
    let Ok(check) = tokio::time::timeout(time, ledger.check(revision)).await else {
        return Err(Problem::new(
            problem::TIMEOUT,
            "The ledger is too large to be checked in this time.",
        ));
    };
    let body = serde_json::to_string(&check?).expect("text keys");
    Ok(json(StatusCode::OK, body))
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
