//! The contract of this node for programs (`/openapi.json`) and for people (`/docs`).

use axum::response::Response;
use service::docs;

pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn openapi() -> Response {
    docs::document(OPENAPI)
}

pub(super) async fn page() -> Response {
    docs::page()
}
