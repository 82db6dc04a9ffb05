//! `/predict`: what the model thinks of a row, or of many.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use service::edge;
use service::problem::Result;

use super::Shared;
use super::state::{App, Ready};
use crate::evaluate::label;
use crate::wire::{Asked, Named, Prediction, invalid, json};

/// Of more rows a model thinks apart.
pub(super) const ROWS_TOGETHER_MAX: usize = 32;

/// `GET /predict`
pub(super) async fn by_query(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    app.admit(&headers)?;
    let ready = app.ready()?;
    let row = ready.shape.of_query(&uri)?;
    one(&app, ready, &row).await
}

/// `POST /predict`
pub(super) async fn by_body(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    app.admit(&parts.headers)?;
    let ready = app.ready()?;
    let body = app.body(body).await?;
    match ready.shape.of_body(&parts.headers, &body)? {
        Asked::One(row) => one(&app, ready, &row).await,
        Asked::Many(rows) => {
            let rows_max = app.config.instances_max;
            if !(1..=rows_max).contains(&rows.len()) {
                return Err(invalid(format!("`instances` must hold 1 to {rows_max} rows.")));
            }
            many(&app, rows).await
        }
    }
}

/// What the model says of a row, honest or not.
pub(super) async fn say(app: &App, ready: &Ready, row: &[f64]) -> Result<Vec<f64>> {
    let honest = ready.predictor.predict(row);
    if app.manner.is_honest() {
        return Ok(honest);
    }
    app.manner.say(row, honest).await
}

/// What the model says of many rows, and what `told` makes of the rows and that.
pub(super) async fn say_all(
    app: &Shared,
    rows: Vec<Vec<f64>>,
    told: impl FnOnce(&App, &Ready, &[Vec<f64>], &[Vec<f64>]) -> Response + Send + 'static,
) -> Result<Response> {
    if rows.len() <= ROWS_TOGETHER_MAX || !app.manner.is_honest() {
        let ready = app.ready()?;
        let mut said = Vec::with_capacity(rows.len());
        for row in &rows {
            said.push(say(app, ready, row).await?);
        }
        return Ok(told(app, ready, &rows, &said));
    }
    app.apart(move |app| {
        let ready = app.ready()?;
        let said: Vec<Vec<f64>> = rows.iter().map(|row| ready.predictor.predict(row)).collect();
        Ok(told(app, ready, &rows, &said))
    })
    .await
}

fn named<'a>(app: &'a App, ready: &'a Ready) -> Named<'a> {
    Named {
        name: &app.name,
        version: &ready.card.version,
    }
}

async fn one(app: &App, ready: &Ready, row: &[f64]) -> Result<Response> {
    let said = say(app, ready, row).await?;
    let mut prediction = Prediction::new(&ready.shape, named(app, ready), row, (label(&said), &said));
    prediction.request_id = Some(edge::request_id());
    Ok(json(StatusCode::OK, &prediction))
}

#[derive(Serialize)]
struct Many<'a> {
    predictions: Vec<Prediction<'a>>,
    model: Named<'a>,
    request_id: String,
}

async fn many(app: &Shared, rows: Vec<Vec<f64>>) -> Result<Response> {
    // It is of this task alone.
    let request_id = edge::request_id();
    say_all(app, rows, move |app, ready, rows, said| {
        let model = named(app, ready);
        let answers = rows.iter().zip(said);
        let predictions =
            answers.map(|(row, said)| Prediction::new(&ready.shape, model, row, (label(said), said)));
        let many = Many {
            predictions: predictions.collect(),
            model,
            request_id,
        };
        json(StatusCode::OK, &many)
    })
    .await
}
