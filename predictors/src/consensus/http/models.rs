//! Models: who takes part, joining, staking, leaving.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use service::fields::Fields;
use service::problem::{self, Problem, Result};

use super::{Shared, answers};
use crate::consensus::once::Once;
use crate::consensus::tokens;
use crate::stakes::MICRO;
use crate::wire::text;

const NAME_BYTES_MAX: usize = 63;

/// `GET /models`
pub(super) async fn list(State(app): State<Shared>) -> Result<Response> {
    let snapshot = app.bank.snapshot(Vec::new()).await?;
    Ok(text(StatusCode::OK, answers::models(&app.bank, &snapshot)))
}

/// `GET /models/{name}`
pub(super) async fn show(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response> {
    let snapshot = app.bank.snapshot(Vec::new()).await?;
    if !snapshot.models.contains_key(&name) {
        let detail = "No model of this name takes part.";
        return Err(Problem::new(problem::MODEL_NOT_FOUND, detail));
    }
    Ok(text(StatusCode::OK, answers::model(&app.bank, &snapshot, &name)))
}

/// An amount, read digit by digit.
fn amount(fields: &mut Fields, name: &str, (min, default): (u64, Option<u64>)) -> Option<u64> {
    if !fields.has(name) {
        if default.is_none() {
            fields.require(name);
        }
        return default;
    }
    let literal = fields.raw(name)?.get().to_owned();
    let parsed = tokens::parse(&literal).filter(|micro| *micro >= min);
    if parsed.is_none() {
        let (least, most) = (tokens::json(min), tokens::AMOUNT_MICRO_MAX / MICRO);
        fields.fault(
            name,
            format_args!(
                "must be {} to {most} tokens, with at most 6 decimal places",
                least.get()
            ),
        );
    }
    parsed
}

fn is_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    let dots = name == "." || name == "..";
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(sound) && !dots
}

/// `POST /models`
pub(super) async fn register(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.operator(&parts.headers)?;
    let body = app.body(body).await?;
    let mut fields = Fields::read(&parts.headers, &body)?;
    let name = fields.text("name");
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        fields.fault(
            "name",
            "must be 1 to 63 letters, digits, dots, hyphens or underscores",
        );
    }
    let url = fields.text("url");
    let place = url.map(|url| app.bank.place(&url));
    if let Some(Err(fault)) = place {
        fields.fault_of(problem::URL_NOT_ALLOWED, "url", fault);
    }
    let params = app.bank.params;
    let bounds = (params.stake_min_micro, Some(params.deposit_micro));
    let deposit = amount(&mut fields, "deposit", bounds);
    fields.finish()?;
    let (Some(name), Some(Ok(url)), Some(deposit)) = (name, place, deposit) else {
        unreachable!("what is missing is a fault")
    };
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, "operator", asked, &body)?;
    let reply = app.bank.register((&name, &url), deposit, once.as_ref()).await?;
    tracing::info!(model.name = name, "a model joined");
    let mut response = reply.into_answer();
    if let Ok(place) = HeaderValue::try_from(format!("/models/{name}")) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// `POST /models/{name}/stake`
pub(super) async fn top_up(
    State(app): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.operator(&parts.headers)?;
    let body = app.body(body).await?;
    let mut fields = Fields::read(&parts.headers, &body)?;
    let amount = amount(&mut fields, "amount", (1, None));
    fields.finish()?;
    let amount = amount.expect("what is missing is a fault");
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, "operator", asked, &body)?;
    let reply = app.bank.top_up(&name, amount, once.as_ref()).await?;
    Ok(reply.into_answer())
}

/// `DELETE /models/{name}`
pub(super) async fn unbond(
    State(app): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    app.operator(&parts.headers)?;
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, "operator", asked, b"")?;
    let reply = app.bank.unbond(&name, once.as_ref()).await?;
    tracing::info!(model.name = name, "a model leaves");
    Ok(reply.into_answer())
}
