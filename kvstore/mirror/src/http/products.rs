//! The catalogue as the copy has it, in the words of the shop.
//! Invariant: the prices stand twice, as a decimal for people and as minor units for programs, and never as a float.
//! A page shows the copy as it is when it is asked for: a copy has no past.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use service::catalogue::Asked;
use service::currency::Currency;
use service::money::Money;
use service::problem::{self, Problem, Result};
use service::query::Query;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::goods::{Place, integer, offer, text};
use super::{App, Shared, paging};
use crate::copy::Record;
use crate::shape::{Cell, PRODUCTS};

pub(super) fn at(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// A currency that nobody knows has two digits behind the point, as most have: the copy shows what it was given.
fn known(currency: &str) -> Currency {
    currency.parse().unwrap_or(Currency::EUR)
}

pub(super) fn money(minor: i64, currency: &str) -> Box<RawValue> {
    Money::new(minor, known(currency)).to_json()
}

pub(super) fn view(record: &Record, currency: &str) -> Value {
    let species = text(record, "species");
    let picture = if species.is_empty() { "other" } else { species }.to_lowercase();
    let (price, stock) = (integer(record, "price_minor"), integer(record, "stock"));
    json!({
        "id": text(record, "id"),
        "name": text(record, "name"),
        "species": species,
        "category": text(record, "category"),
        "description": text(record, "description"),
        "price": money(price, currency),
        "price_minor": price,
        "currency": currency,
        "stock": stock,
        "inStock": stock > 0,
        "image": format!("/pictures/{}.svg", utf8_percent_encode(&picture, NON_ALPHANUMERIC)),
        "created": at(integer(record, "created_ms")),
    })
}

async fn all(app: &App) -> Result<Vec<Record>> {
    let shop = Cell::text(&app.config.shop.name);
    let mut records = app.read(move |reader| reader.select(&PRODUCTS, &[shop])).await?;
    // A stock without its product is no product.
    records.retain(|record| record.get("name").is_some_and(Value::is_string));
    Ok(records)
}

pub(super) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let (query, currency) = (Query::of(&uri), &app.config.shop.currency);
    let limit = paging::limit(&query)?;
    let asked = Asked::of(&query, known(currency))?;
    let after: Option<Place> = paging::after(&query)?;
    if after.as_ref().is_some_and(|after| after.sort != asked.sort) {
        return Err(paging::foreign());
    }
    let records = all(&app).await?;
    let taken = records.iter().filter(|record| asked.takes(&offer(record)));
    let placed = taken.map(|record| (Place::of(record, asked.sort), record));
    let mut rows: Vec<(Place, &Record)> = placed.collect();
    rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let shown = after.map_or(0, |after| rows.partition_point(|(place, _)| *place <= after));
    let page: Vec<&(Place, &Record)> = rows.iter().skip(shown).take(limit).collect();
    let views: Vec<Value> = page.iter().map(|(_, record)| view(record, currency)).collect();
    let mut response = Json(views).into_response();
    let total = HeaderValue::from(rows.len());
    response.headers_mut().insert("x-total-count", total);
    let more = shown + page.len() < rows.len();
    if let Some((last, _)) = page.last().filter(|_| more) {
        paging::link_next(&mut response, &uri, &app.name, last);
    }
    Ok(response)
}

pub(super) async fn show(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>> {
    let key = vec![Cell::text(&app.config.shop.name), Cell::Text(id)];
    let records = app.read(move |reader| reader.select(&PRODUCTS, &key)).await?;
    let found = records
        .first()
        .filter(|record| record.get("name").is_some_and(Value::is_string));
    let found = found.ok_or_else(|| Problem::new(problem::NOT_FOUND, "The copy has no such product."))?;
    Ok(Json(view(found, &app.config.shop.currency)))
}
