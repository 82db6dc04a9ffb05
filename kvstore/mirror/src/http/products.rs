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
use super::{Shared, paging};
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

/// Some of what fits.
struct Page {
    records: Vec<Record>,
    /// Of all pages.
    count: usize,
    /// Of the last of them, if others follow.
    last: Option<Place>,
}

/// A stock without its product is no product.
fn is_product(record: &Record) -> bool {
    record.get("name").is_some_and(Value::is_string)
}

impl Page {
    fn of(records: Vec<Record>, asked: &Asked, after: Option<&Place>, limit: usize) -> Self {
        let taken = records
            .into_iter()
            .filter(|record| is_product(record) && asked.takes(&offer(record)));
        let placed = taken.map(|record| (Place::of(&record, asked.sort), record));
        let mut rows: Vec<(Place, Record)> = placed.collect();
        rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let count = rows.len();
        let shown = after.map_or(0, |after| rows.partition_point(|(place, _)| place <= after));
        let mut rows = rows.split_off(shown);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Self {
            count,
            last: rows.last().filter(|_| more).map(|(place, _)| place.clone()),
            records: rows.into_iter().map(|(_, record)| record).collect(),
        }
    }
}

pub(super) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let (query, currency) = (Query::of(&uri), &app.config.shop.currency);
    let limit = paging::limit(&query)?;
    let asked = Asked::of(&query, known(currency))?;
    let after: Option<Place> = paging::after(&query)?;
    if after.as_ref().is_some_and(|after| after.sort != asked.sort) {
        return Err(paging::foreign());
    }
    let shop = Cell::text(&app.config.shop.name);
    // All of it is in memory while it is looked through, so that is done where not many do it at the same time.
    let page = app.read(move |reader| {
        let records = reader.select(&PRODUCTS, &[shop])?;
        Ok(Page::of(records, &asked, after.as_ref(), limit))
    });
    let page = page.await?;
    let views = page.records.iter().map(|record| view(record, currency));
    let mut response = Json(views.collect::<Vec<_>>()).into_response();
    let total = HeaderValue::from(page.count);
    response.headers_mut().insert("x-total-count", total);
    if let Some(last) = &page.last {
        paging::link_next(&mut response, &uri, &app.name, last);
    }
    Ok(response)
}

pub(super) async fn show(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>> {
    let key = vec![Cell::text(&app.config.shop.name), Cell::Text(id)];
    let records = app.look_up(move |reader| reader.select(&PRODUCTS, &key)).await?;
    let found = records.first().filter(|record| is_product(record));
    let found = found.ok_or_else(|| Problem::new(problem::NOT_FOUND, "The copy has no such product."))?;
    Ok(Json(view(found, &app.config.shop.currency)))
}
