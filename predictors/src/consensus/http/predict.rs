//! `/predict`: what all models together think. GET changes nothing, POST opens a round.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use service::problem::Result;
use tokio::time::Instant;

use super::answers::{self, Beside};
use super::{App, Shared};
use crate::consensus::once::Once;
use crate::consensus::room::Opener;
use crate::consensus::rounds::{Opening, round_of};
use crate::wire::{Asked, invalid, text};

/// `GET /predict`
pub(super) async fn look(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let row = app.shape.of_query(&uri)?;
    let began = Instant::now();
    let opinion = app.bank.opinion(&app.asker, row).await?;
    app.heard_seconds.observe(began.elapsed().as_secs_f64());
    // Where models are private, nobody is to learn from here what they say.
    let beside = Beside {
        individuals: !app.bank.config.private_models,
        ..Beside::default()
    };
    let body = answers::opinion(&app.shape, &opinion, &beside);
    Ok(text(StatusCode::OK, body))
}

/// `POST /predict`
pub(super) async fn open(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let (opener, owner) = whose(&app, &parts)?;
    let body = app.body(body).await?;
    let asked = app.shape.of_body(&parts.headers, &body)?;
    let (row, listed) = match &asked {
        Asked::One(row) => (row.as_slice(), false),
        Asked::Many(rows) => (only(rows)?, true),
    };
    let opening = Opening {
        row,
        listed,
        opener: &opener,
    };
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, &owner, asked, &body)?;
    let reply = app
        .bank
        .open(&app.asker, &app.shape, &opening, once.as_ref())
        .await?;
    let id = round_of(&reply.body);
    let mut response = reply.into_answer();
    if let Some(id) = id
        && let Ok(place) = HeaderValue::try_from(format!("/rounds/{id}"))
    {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

fn only(rows: &[Vec<f64>]) -> Result<&[f64]> {
    let [row] = rows else {
        let detail = "A round is about one instance, so `instances` must hold one row. Ask about each row by itself: \
                      each opens a round of its own.";
        return Err(invalid(detail));
    };
    Ok(row)
}

/// For whom a round is opened, and whose its idempotency key is. Rounds take no token, but whoever has one is not
/// crowded out by those who have none.
fn whose(app: &App, parts: &Parts) -> Result<(Opener, String)> {
    let known = app.known(&parts.headers)?;
    Ok(known.map_or_else(
        || stranger(app, parts),
        |caller| (Opener::Known, caller.word().to_owned()),
    ))
}

/// The same of whoever has no token, by where they call from.
pub(super) fn stranger(app: &App, parts: &Parts) -> (Opener, String) {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let address = peer.map_or(IpAddr::from([0; 4]), |ConnectInfo(peer)| peer.ip());
    let opener = Opener::at(&app.secrets, address);
    let owner = opener.word().to_owned();
    (opener, owner)
}
