//! The orders of a user as the copy has them.
//! Invariant: where users sign in, only they and the operator see them: the session is looked up in the copy.

use std::fmt::Write as _;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::bearer;
use service::config::ShopAuth;
use service::problem::{self, Problem, Result};
use service::query::Query;
use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use super::goods::{integer, text};
use super::products::{at, money};
use super::{App, Shared, paging};
use crate::copy::Record;
use crate::shape::{Cell, ORDER_LINES, ORDERS};

/// Where an order stands among those of its user: ids grow with time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    id: String,
}

/// Some orders, each with its lines.
struct Page {
    orders: Vec<(Record, Vec<Record>)>,
    /// The last of them, if others follow.
    last: Option<Place>,
}

pub(super) async fn list(
    State(app): State<Shared>,
    Path(user): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    if app.config.shop.auth == ShopAuth::Accounts && !app.is_operator(&headers) {
        may_see(&app, &user, &headers).await?;
    }
    let query = Query::of(&uri);
    let limit = paging::limit(&query)?;
    let after: Option<Place> = paging::after(&query)?;
    let key = vec![Cell::text(&app.config.shop.name), Cell::Text(user)];
    let page = app
        .read(move |reader| {
            // All of one revision.
            let view = reader.view()?;
            let before = after.map(|after| Cell::Text(after.id));
            // One more than is shown tells whether others follow.
            let orders = view.last(&ORDERS, &key, before.as_ref(), limit + 1)?;
            let (orders, last) = shown(orders, limit);
            let mut page = Page {
                orders: Vec::with_capacity(orders.len()),
                last,
            };
            for order in orders {
                let mut key = key.clone();
                key.push(Cell::text(text(&order, "id")));
                page.orders.push((order, view.select(&ORDER_LINES, &key)?));
            }
            Ok(page)
        })
        .await?;
    let views: Vec<Value> = page
        .orders
        .iter()
        .map(|(order, lines)| view(order, lines))
        .collect();
    let mut response = Json(views).into_response();
    if let Some(last) = &page.last {
        paging::link_next(&mut response, &uri, &app.name, last);
    }
    Ok(response)
}

/// Those that are shown, and the last of them if there are more.
pub(super) fn shown(mut orders: Vec<Record>, limit: usize) -> (Vec<Record>, Option<Place>) {
    let more = orders.len() > limit;
    orders.truncate(limit);
    let last = orders.last().filter(|_| more).map(|order| Place {
        id: text(order, "id").to_owned(),
    });
    (orders, last)
}

pub(super) fn view(order: &Record, lines: &[Record]) -> Value {
    let id = text(order, "id");
    let currency = text(order, "currency");
    let items = lines.iter().map(|line| {
        let (unit, quantity) = (integer(line, "unit_minor"), integer(line, "quantity"));
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
    });
    let items: Vec<Value> = items.collect();
    let total = integer(order, "total_minor");
    json!({
        "order_id": id,
        "orderId": id,
        "user_id": order.get("user_id"),
        "items": items,
        "total": money(total, currency),
        "total_minor": total,
        "currency": currency,
        "status": order.get("status"),
        "created": at(integer(order, "created_ms")),
        "changed": at(integer(order, "changed_ms")),
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
    let row = app.look_up(move |reader| reader.get(&key)).await?;
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
