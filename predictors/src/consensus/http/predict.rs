//! `/predict`: what all models together think. GET changes nothing, POST opens a round.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use service::problem::Result;
use tokio::time::Instant;

use super::{App, Shared, answers};
use crate::consensus::once::Once;
use crate::consensus::room::Opener;
use crate::consensus::rounds::round_of;
use crate::wire::{Asked, invalid, text};

/// `GET /predict`
pub(super) async fn look(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let row = app.shape.of_query(&uri)?;
    let began = Instant::now();
    let opinion = app.bank.opinion(&app.asker, row).await?;
    app.heard_seconds.observe(began.elapsed().as_secs_f64());
    // Where models are private, nobody is to learn from here what they say.
    let individuals = !app.bank.config.private_models;
    Ok(text(
        StatusCode::OK,
        answers::opinion(&app.shape, &opinion, None, individuals),
    ))
}

/// `POST /predict`
pub(super) async fn open(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let (opener, owner) = whose(&app, &parts)?;
    let body = app.body(body).await?;
    let row = match app.shape.of_body(&parts.headers, &body, 1)? {
        Asked::One(row) => row,
        Asked::Many(mut rows) => rows
            .pop()
            .ok_or_else(|| invalid("A round is about exactly one row."))?,
    };
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, &owner, asked, &body)?;
    let reply = app
        .bank
        .open(&app.asker, &app.shape, (&row, &opener), once.as_ref())
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
