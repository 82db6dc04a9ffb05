//! Outcomes and rounds.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use service::fields::Fields;
use service::problem::Result;

use super::{Shared, answers};
use crate::consensus::once::Once;
use crate::consensus::records;
use crate::consensus::settler::Report;
use crate::wire::text;

/// `POST /outcomes`
pub(super) async fn outcome(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.oracle(&parts.headers)?;
    let body = app.body(body).await?;
    let mut fields = Fields::read(&parts.headers, &body)?;
    let round = fields.text("round_id");
    fields.require("outcome");
    let given = fields.raw("outcome").map(|raw| raw.get().to_owned());
    let outcome = given.and_then(|raw| app.shape.class(&raw));
    if outcome.is_none() && fields.has("outcome") {
        let classes = app.shape.classes.join(", ");
        let last = app.shape.classes.len() - 1;
        fields.fault(
            "outcome",
            format_args!("must be a class: 0 to {last}, or one of {classes}"),
        );
    }
    fields.finish()?;
    let (Some(round), Some(outcome)) = (round, outcome) else {
        unreachable!("what is missing is a fault")
    };
    let asked = (&parts.method, &parts.uri, &parts.headers);
    let once = Once::of(&app.secrets, "oracle", asked, &body)?;
    Once::claim(once.as_ref(), &app.bank).await?;
    let settled = app.settler.settle(Report { round, outcome }).await;
    let result = match &settled {
        Ok(reply) if reply.replayed => "repeated",
        Ok(_) => "settled",
        Err(_) => "refused",
    };
    app.settled.with_label_values(&[result]).inc();
    Ok(settled?.into_answer())
}

/// `GET /rounds/{id}`
pub(super) async fn show(
    State(app): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    // Where models are private, nobody is to learn from here what they say before it has counted.
    let trusted = !app.bank.config.private_models || app.known(&headers)?.is_some();
    let record = app.bank.round(&id).await?;
    let individuals = trusted || record.state != records::State::Closed;
    let body = answers::round(&app.shape, &id, &record, individuals);
    Ok(text(StatusCode::OK, body))
}
