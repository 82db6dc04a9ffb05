//! The catalogue as the copy has it, in the words of the shop.
//! Invariant: the prices stand twice, as a decimal for people and as minor units for programs, and never as a float.

use std::cmp::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use service::problem::{self, Problem, Result};
use service::query::{Query, malformed};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{App, Shared};
use crate::copy::Record;
use crate::shape::{Cell, PRODUCTS};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;

fn text<'r>(record: &'r Record, name: &str) -> &'r str {
    record.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn integer(record: &Record, name: &str) -> i64 {
    record.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// Currencies without cents do not have any here either.
pub(super) fn money(minor: i64, currency: &str) -> Box<RawValue> {
    let text = if matches!(currency, "JPY" | "KRW" | "CLP" | "VND" | "ISK") {
        minor.to_string()
    } else {
        let (sign, minor) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
        format!("{sign}{}.{:02}", minor / 100, minor % 100)
    };
    RawValue::from_string(text).expect("a decimal is JSON")
}

pub(super) fn at(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

fn view(record: &Record, currency: &str) -> Value {
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
    // Numbers of products count up: 10 comes after 9.
    records.sort_by(|one, other| by_id(text(one, "id"), text(other, "id")));
    Ok(records)
}

fn by_id(one: &str, other: &str) -> Ordering {
    (one.len(), one).cmp(&(other.len(), other))
}

pub(super) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Response> {
    let query = Query::of(&uri);
    let limit = match query.text("limit")? {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| {
                malformed(format!(
                    "The parameter `limit` is a number from 1 to {LIMIT_MAX}."
                ))
            })?,
    };
    let (category, species) = (query.text("category")?, query.text("species")?);
    let words = query.text("q")?.map(|words| words.to_lowercase());
    let in_stock = match query.text("inStock")? {
        None => None,
        Some(_) => Some(query.flag("inStock")?),
    };
    let after = query.text("cursor")?;
    let same =
        |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(found));
    let mut records = all(&app).await?;
    records.retain(|record| {
        let name = text(record, "name").to_lowercase();
        same(category.as_deref(), text(record, "category"))
            && same(species.as_deref(), text(record, "species"))
            && words.as_ref().is_none_or(|words| {
                name.contains(words) || text(record, "description").to_lowercase().contains(words)
            })
            && in_stock.is_none_or(|wanted| wanted == (integer(record, "stock") > 0))
            && after
                .as_ref()
                .is_none_or(|after| by_id(text(record, "id"), after).is_gt())
    });
    let more = records.len() > limit;
    records.truncate(limit);
    let currency = &app.config.shop.currency;
    let views: Vec<Value> = records.iter().map(|record| view(record, currency)).collect();
    let mut response = Json(views).into_response();
    if let Some(last) = records.last().filter(|_| more) {
        response
            .headers_mut()
            .insert(header::LINK, next(&uri, text(last, "id")));
    }
    Ok(response)
}

/// The same question, after this product.
fn next(uri: &Uri, after: &str) -> HeaderValue {
    let kept = uri.query().unwrap_or_default().split('&');
    let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: String = kept.flat_map(|pair| [pair, "&"]).collect();
    let query = query.replace('>', "%3E");
    let after = utf8_percent_encode(after, NON_ALPHANUMERIC);
    let link = format!("</products?{query}cursor={after}>; rel=\"next\"");
    HeaderValue::try_from(link).unwrap_or(HeaderValue::from_static(""))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_a_decimal() {
        let of = |minor, currency| money(minor, currency).get().to_owned();
        assert_eq!(of(29_999, "EUR"), "299.99");
        assert_eq!(of(-5, "EUR"), "-0.05");
        assert_eq!(of(500, "JPY"), "500");
    }
}
