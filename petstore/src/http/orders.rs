//! Orders: making them, looking at them, canceling them.
//! Invariant: a card number goes into a type that is wiped and shows itself nowhere; in any other place it is refused.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use payment_client::looks_like_token;
use serde_json::value::RawValue;
use service::body::Object;
use service::fields::Fields;
use service::idempotency::REPLAYED;
use service::problem::{self, Problem};
use service::query::Query;
use zeroize::Zeroizing;

use super::caller::Caller;
use super::reading::{id, json, limit, link_next, price, whole_of};
use super::{Result, Shared};
use crate::domain::{OrderId, UserId, segment};
use crate::shop::views;
use crate::shop::{Card, Checkout, Ended, LINES_MAX, QUANTITY_MAX, Shop, Wanted, Wish};

/// Who orders where nobody says who.
const GUEST: &str = "guest";

fn place(user: &str, order: &str) -> String {
    format!("/orders/{}/{order}", segment(user))
}

fn order_id(text: &str) -> Result<OrderId> {
    OrderId::parse(text)
        .ok_or_else(|| Problem::new(problem::ORDER_NOT_FOUND, "This user has no order with this id."))
}

fn card(fields: &mut Fields, needed: bool) -> Option<Card> {
    match (fields.has("cardNumber"), fields.has("paymentToken")) {
        (true, true) => {
            fields.fault("paymentToken", "excludes `cardNumber`: name the card in one way");
            None
        }
        (_, true) => payment_token(fields).map(Card::Token),
        (true, _) => {
            let text = fields.optional_text("cardNumber");
            text.map(|text| Card::Number(Zeroizing::new(text)))
        }
        (false, false) => {
            if needed {
                fields.require("cardNumber");
            }
            None
        }
    }
}

/// It is written down with the order before anybody knows whether it is one, so what may be a card number is no token.
fn payment_token(fields: &mut Fields) -> Option<String> {
    let token = fields.optional_text("paymentToken")?;
    if looks_like_token(&token) {
        return Some(token);
    }
    fields.fault(
        "paymentToken",
        "must be what `POST /v1/tokens` of the payment service answered; a card number goes into `cardNumber`",
    );
    None
}

/// `items`, or `products`, as some call them; the same product named twice is one line.
fn wanted(fields: &mut Fields) -> Wanted {
    let name = if fields.has("items") { "items" } else { "products" };
    let Some(raw) = fields.raw(name).map(RawValue::to_owned) else {
        return Wanted::Cart;
    };
    let Ok(rows) = serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()) else {
        fields.fault(
            name,
            "must be a list such as [{\"productId\": \"1\", \"quantity\": 2}]",
        );
        return Wanted::Cart;
    };
    if rows.is_empty() || rows.len() > LINES_MAX {
        fields.fault(name, format_args!("must have 1 to {LINES_MAX} lines"));
        return Wanted::Cart;
    }
    let mut items: Vec<(String, i64)> = Vec::with_capacity(rows.len());
    for (n, row) in rows.iter().enumerate() {
        match line(row) {
            Ok((product, quantity)) => {
                let known = items.iter_mut().find(|(known, _)| *known == product);
                let sum = if let Some((_, sum)) = known {
                    *sum += quantity;
                    *sum
                } else {
                    items.push((product, quantity));
                    quantity
                };
                if sum > QUANTITY_MAX {
                    fields.fault(
                        name,
                        format_args!("line {n} makes more than {QUANTITY_MAX} of a product"),
                    );
                }
            }
            Err(fault) => fields.fault(name, format_args!("line {n}: {fault}")),
        }
    }
    Wanted::Items(items)
}

fn line(row: &RawValue) -> std::result::Result<(String, i64), String> {
    #[derive(serde::Deserialize)]
    struct Row {
        #[serde(rename = "productId")]
        product: Option<Box<RawValue>>,
        quantity: Option<Box<RawValue>>,
    }
    let Object::<Row>(row) =
        serde_json::from_str(row.get()).map_err(|_other| "must be an object".to_owned())?;
    let product = row.product.as_deref().and_then(id);
    let product = product.ok_or("`productId` must be a string or a whole number")?;
    let quantity = row.quantity.map_or(Some(1), |quantity| whole_of(quantity.get()));
    let quantity = quantity.filter(|quantity| (1..=QUANTITY_MAX).contains(quantity));
    let quantity =
        quantity.ok_or_else(|| format!("`quantity` must be a whole number from 1 to {QUANTITY_MAX}"))?;
    Ok((product, quantity))
}

/// For whom is ordered: for oneself, unless the admin orders for another, or everybody is trusted.
fn buyer(fields: &mut Fields, app: &Shared, caller: &Caller) -> Result<Option<UserId>> {
    let own = caller.user();
    let Some(raw) = fields.raw("userId").map(RawValue::to_owned) else {
        if let Some(own) = own {
            return Ok(Some(own));
        }
        if let Ok(guest) = app.user_of_path(caller, GUEST)
            && !matches!(caller, Caller::Operator)
        {
            return Ok(Some(guest));
        }
        if matches!(caller, Caller::Nobody) {
            return app.user_of_path(caller, GUEST).map(Some);
        }
        fields.require("userId");
        return Ok(None);
    };
    let Some(user) = id(&raw) else {
        fields.fault("userId", "must be a string or a whole number");
        return Ok(None);
    };
    app.new_user_of_path(caller, &user).map(Some)
}

/// `POST /orders`
pub(super) async fn order(State(app): State<Shared>, request: Request) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    if matches!(caller, Caller::Nobody) && !shop.is_open() {
        app.user_of_path(&caller, GUEST)?;
    }
    let mut fields = read.fields()?;
    let user = buyer(&mut fields, &app, &caller)?;
    let card = card(&mut fields, !shop.is_open());
    let wanted = wanted(&mut fields);
    let total_minor = price(&mut fields, "expectedTotal", shop.currency, u64::MAX);
    fields.finish()?;
    let user = user.expect("what is missing is a fault");
    let once = read.once(shop, &caller, Some(user.as_str()))?;
    let wish = Wish {
        user,
        wanted,
        card,
        total_minor,
        once,
    };
    let checkout = shop.order(wish, !wants_no_wait(&read.parts.headers)).await?;
    Ok(told(shop, checkout))
}

fn wants_no_wait(headers: &HeaderMap) -> bool {
    let wishes = headers.get_all("prefer").iter();
    let mut wishes = wishes
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    wishes.any(|wish| wish.trim().eq_ignore_ascii_case("respond-async"))
}

fn told(shop: &Shop, checkout: Checkout) -> Response {
    let Checkout { found, replayed } = checkout;
    let view = views::order(found.user.as_str(), found.id.as_str(), &found.record);
    let location = place(found.user.as_str(), found.id.as_str());
    let mut response = match Ended::of(found.record.status) {
        Ended::Declined => declined(view.decline_code.as_deref(), &view.order_id, &location).into_response(),
        Ended::Well | Ended::Canceled => json(StatusCode::CREATED, &view),
        Ended::NotYet => json(StatusCode::ACCEPTED, &view),
    };
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if response.status() == StatusCode::ACCEPTED {
        let seconds = shop.config.order_wait_ms.div_ceil(1000).max(1);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn declined(code: Option<&str>, order: &str, location: &str) -> Problem {
    Problem::new(
        problem::CARD_DECLINED,
        "The card was not charged. The goods are back on the shelves, and the cart is as it was.",
    )
    .extra("decline_code", code.unwrap_or("declined"))
    .extra("order_id", order)
    .extra("order", location)
}

/// `GET /orders/{user}`
pub(super) async fn list(
    State(app): State<Shared>,
    Path(user): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    let shop = app.shop()?;
    let caller = app.caller(&Method::GET, &headers).await?;
    let user = app.user_of_path(&caller, &user)?;
    let query = Query::of(&uri);
    let limit = u32::try_from(limit(&query)?).expect("it is small");
    let page = shop.orders_of(&user, limit, query.cursor()?).await?;
    let orders = page.orders.iter();
    let orders: Vec<_> = orders
        .map(|(id, record)| views::order(user.as_str(), id, record))
        .collect();
    let mut response = json(StatusCode::OK, &orders);
    if let Some(next) = &page.next {
        link_next(&mut response, &uri, next);
    }
    Ok(response)
}

/// `GET /orders/{user}/{order}`
pub(super) async fn show(
    State(app): State<Shared>,
    Path((user, order)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let shop = app.shop()?;
    let caller = app.caller(&Method::GET, &headers).await?;
    let user = app.user_of_path(&caller, &user)?;
    let found = shop.found_order(&user, &order_id(&order)?).await?;
    let view = views::order(user.as_str(), found.id.as_str(), &found.record);
    let mut response = json(StatusCode::OK, &view);
    let tag = views::tag(found.revision);
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// `POST /orders/{user}/{order}/cancel`: asked again, it answers the order as it is then.
pub(super) async fn cancel(
    State(app): State<Shared>,
    Path((user, order)): Path<(String, String)>,
    request: Request,
) -> Result<Response> {
    let (shop, read) = (app.shop()?, app.read(request).await?);
    let caller = app.caller(&read.parts.method, &read.parts.headers).await?;
    let user = app.user_of_path(&caller, &user)?;
    let once = read.once(shop, &caller, Some(user.as_str()))?;
    let checkout = shop.cancel(&user, &order_id(&order)?, once.as_ref()).await?;
    let Checkout { found, replayed } = checkout;
    let view = views::order(user.as_str(), found.id.as_str(), &found.record);
    let status = match Ended::of(found.record.status) {
        Ended::Canceled => StatusCode::OK,
        // Where letters carry it on it may not have heard of it yet, in whatever state it is.
        _ => StatusCode::ACCEPTED,
    };
    let mut response = json(status, &view);
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(place(user.as_str(), found.id.as_str())) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
