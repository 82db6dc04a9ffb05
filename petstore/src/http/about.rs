//! The process and the proof: is it there, can it work, is everything sound.

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::caller::must_look_after;
use super::reading::json;
use super::{Result, Shared};

/// `GET /hello`
pub(super) async fn hello() -> Response {
    json(StatusCode::OK, &serde_json::json!({"message": "Hello, World!"}))
}

/// `GET /readyz`
pub(super) async fn ready(State(app): State<Shared>) -> Result<&'static str> {
    app.shop()?.reach().await?;
    Ok("ready\n")
}

/// `GET /metrics`
pub(super) async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    let caller = app.caller(&Method::GET, &headers).await?;
    must_look_after(&caller)?;
    Ok(app.metrics.response())
}

/// `GET /admin/audit`
pub(super) async fn audit(State(app): State<Shared>, headers: HeaderMap) -> Result<Response> {
    let caller = app.caller(&Method::GET, &headers).await?;
    must_look_after(&caller)?;
    Ok(json(StatusCode::OK, &app.shop()?.audit().await?))
}
