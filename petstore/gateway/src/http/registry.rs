//! Who is there: for clients that choose for themselves, and for people who look.
//! Invariant: an instance that is left out is never named as the next.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use service::bearer;
use service::problem::{self, Problem};
use service::query::Query;

use super::Shared;

const SHOP: &str = "petstore";

/// `{"code": 200, "server": "host:port"}`, in turn over those that live.
pub(super) async fn get_server(State(app): State<Shared>, uri: Uri) -> problem::Result<Response> {
    let query = Query::of(&uri);
    let service = query.text("service")?;
    let service = match service.as_deref() {
        None | Some("shop") => SHOP,
        Some(service) => service,
    };
    let excluded = query.text("exclude")?.unwrap_or_default();
    let excluded: Vec<String> = excluded.split(',').map(str::to_owned).collect();
    let stale = app.roster.is_stale();
    let Some(instance) = app.roster.next(service, &excluded) else {
        let text = format!("no instance of {service} is running");
        let body = json!({"code": 503, "server": null, "message": text, "stale": stale});
        let again = [(header::RETRY_AFTER, "1")];
        return Ok((StatusCode::SERVICE_UNAVAILABLE, again, Json(body)).into_response());
    };
    let mut body = json!({"code": 200, "server": instance.address, "name": instance.name});
    if stale {
        body["stale"] = json!(true);
    }
    Ok(Json(body).into_response())
}

/// Every instance of every service, with its health.
pub(super) async fn services(State(app): State<Shared>) -> Json<Value> {
    let instances = app.roster.all().into_iter().map(|(instance, failure)| {
        json!({
            "service": instance.service,
            "name": instance.name,
            "address": instance.address,
            "version": instance.version,
            "started_ms": instance.started_ms,
            "health": if failure.is_some() { "left-out" } else { "up" },
            "reason": failure,
        })
    });
    let instances: Vec<Value> = instances.collect();
    Json(json!({"stale": app.roster.is_stale(), "services": instances}))
}

/// Ready once the registry was read; an old list is no reason to send people away.
pub(super) async fn ready(State(app): State<Shared>) -> problem::Result<&'static str> {
    if app.roster.is_known() {
        return Ok("ready\n");
    }
    Err(Problem::new(
        problem::NOT_READY,
        "The registry was not read yet; the store may have no leader.",
    ))
}

pub(super) async fn metrics(State(app): State<Shared>, headers: HeaderMap) -> problem::Result<Response> {
    let token = std::str::from_utf8(bearer::token(&headers)?).unwrap_or_default();
    if !app.operator_token.matches(token) {
        return Err(bearer::unauthorized("This token is not the operator's."));
    }
    Ok(app.metrics.response())
}
