//! The orders of a user as the copy has them.
//! Invariant: where users sign in, only they and the operator see them: the session is looked up in the copy.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use service::bearer;
use service::config::ShopAuth;
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use super::money::money;
use super::products::at;
use super::{App, Shared};
use crate::copy::Record;
use crate::shape::{Cell, ORDER_LINES, ORDERS};

pub(super) async fn list(
    State(app): State<Shared>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<Value>>> {
    if app.config.shop.auth == ShopAuth::Accounts && !app.is_operator(&headers) {
        may_see(&app, &user, &headers).await?;
    }
    let key = [Cell::text(&app.config.shop.name), Cell::Text(user)];
    let (mut orders, lines) = app
        .read(move |reader| {
            // Both of one revision.
            let view = reader.view()?;
            Ok((view.select(&ORDERS, &key)?, view.select(&ORDER_LINES, &key)?))
        })
        .await?;
    let number = |order: &Record, name: &str| order.get(name).and_then(Value::as_i64).unwrap_or_default();
    orders.sort_by_key(|order| {
        std::cmp::Reverse((number(order, "created_ms"), order.get("id").map(Value::to_string)))
    });
    Ok(Json(orders.iter().map(|order| view(order, &lines)).collect()))
}

fn view(order: &Record, lines: &[Record]) -> Value {
    let id = order.get("id").unwrap_or(&Value::Null);
    let currency = order.get("currency").and_then(Value::as_str).unwrap_or_default();
    let number = |record: &Record, name: &str| record.get(name).and_then(Value::as_i64).unwrap_or_default();
    let items = lines.iter().filter(|line| line.get("order_id") == Some(id));
    let items: Vec<Value> = items
        .map(|line| {
            let (unit, quantity) = (number(line, "unit_minor"), number(line, "quantity"));
            let subtotal = unit.saturating_mul(quantity);
            json!({
                "productId": line.get("product_id"),
                "name": line.get("name"),
                "species": line.get("species"),
                "quantity": quantity,
                "price": money(unit, currency),
                "price_minor": unit,
                "subtotal": money(subtotal, currency),
                "subtotal_minor": subtotal,
            })
        })
        .collect();
    json!({
        "order_id": id,
        "orderId": id,
        "user_id": order.get("user_id"),
        "items": items,
        "total": money(number(order, "total_minor"), currency),
        "total_minor": number(order, "total_minor"),
        "currency": currency,
        "status": order.get("status"),
        "created": at(number(order, "created_ms")),
        "changed": at(number(order, "changed_ms")),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("writing to memory does not fail");
    }
    digits
}

/// The shop keeps sessions under the hash of their tokens.
async fn may_see(app: &App, user: &str, headers: &HeaderMap) -> Result<()> {
    let hash = hex(&Sha256::digest(bearer::token(headers)?));
    let shop =
        percent_encoding::utf8_percent_encode(&app.config.shop.name, percent_encoding::NON_ALPHANUMERIC);
    // Names of shops are letters, digits, hyphens and underscores, of which only the last two would be encoded here.
    let shop = shop.to_string().replace("%2D", "-").replace("%5F", "_");
    let key = format!("shop/{shop}/live/session/{hash}");
    let row = app.read(move |reader| reader.get(&key)).await?;
    let session: Option<Value> = row.and_then(|row| serde_json::from_slice(&row.value).ok());
    let lives = |session: &Value| session["expires_ms"].as_u64().is_some_and(|end| end > now_ms());
    let Some(session) = session.filter(lives) else {
        return Err(bearer::unauthorized("Nobody is signed in with this."));
    };
    if session["user"] == user || session["admin"] == true {
        return Ok(());
    }
    Err(Problem::new(
        problem::FORBIDDEN,
        "These are the orders of somebody else.",
    ))
}
