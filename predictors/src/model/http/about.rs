//! What is known of the model, and how this process is.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use service::problem::Result;

use super::Shared;
use crate::wire::json;

/// `GET /model`
pub(super) async fn card(State(app): State<Shared>) -> Result<Response> {
    Ok(json(StatusCode::OK, &app.ready()?.card))
}

/// `GET /readyz`: a model that is loaded needs nothing more.
pub(super) async fn ready(State(app): State<Shared>) -> Result<&'static str> {
    app.ready()?;
    Ok("ready\n")
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    app.operator(&headers)?;
    Ok(app.metrics.response())
}
