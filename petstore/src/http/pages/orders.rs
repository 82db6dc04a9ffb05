//! Orders as their owner sees them.

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use payment_client::Currency;
use service::problem::{self, Problem};
use service::query::{Query, next_page};

use super::{Frame, Page, Shared, minute, money, render, see_again, sign_in_first};
use crate::domain::{OrderId, Status};
use crate::http::Result;
use crate::store::OrderRecord;

const PAGE_ROWS: u32 = 25;

#[derive(Template)]
#[template(path = "orders.html")]
struct OrdersPage {
    frame: Frame,
    orders: Vec<OrderView>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage {
    frame: Frame,
    order: OrderView,
    error: Option<String>,
}

struct OrderView {
    id: String,
    short: String,
    created: String,
    what: String,
    status: &'static str,
    meaning: &'static str,
    is_ended: bool,
    total: String,
    lines: Vec<LineView>,
    card: Option<String>,
    can_cancel: bool,
    cancel: &'static str,
}

struct LineView {
    name: String,
    price: String,
    quantity: i64,
    subtotal: String,
}

impl OrderView {
    fn of(id: &str, record: &OrderRecord) -> Self {
        let currency = record.currency.parse().unwrap_or(Currency::EUR);
        let line = |line: &crate::domain::Line| LineView {
            name: line.name.clone(),
            price: money(line.unit_minor, currency),
            quantity: line.quantity,
            subtotal: money(line.unit_minor.saturating_mul(line.quantity), currency),
        };
        let what = record
            .lines
            .iter()
            .map(|line| format!("{} × {}", line.quantity, line.name));
        let card = record.payment.as_ref().and_then(|payment| {
            Some(format!(
                "{} •••• {}",
                payment.brand.as_ref()?,
                payment.last4.as_ref()?
            ))
        });
        Self {
            id: id.to_owned(),
            short: id.chars().skip(id.len().saturating_sub(6)).collect(),
            created: minute(record.created_ms),
            what: what.collect::<Vec<_>>().join(", "),
            status: record.status.word(),
            meaning: meaning(record.status),
            is_ended: record.status.is_ended(),
            total: money(record.total_minor, currency),
            lines: record.lines.iter().map(line).collect(),
            card,
            can_cancel: matches!(record.status, Status::Pending | Status::Paid),
            cancel: if record.status == Status::Paid {
                "Return everything and get the money back"
            } else {
                "Cancel the order"
            },
        }
    }
}

fn meaning(status: Status) -> &'static str {
    match status {
        Status::Pending => "the goods are yours, the card is being asked",
        Status::Authorized => "the card has said yes, the money is being taken",
        Status::Paid => "all is done, thank you",
        Status::PaymentFailed => "the card was declined, and nothing was charged",
        Status::Canceling => "it is being taken back",
        Status::Canceled => "it was taken back, and nothing was charged",
        Status::Refunding => "the money is on its way back",
        Status::Refunded => "the money is back on the card",
        Status::Confirmed => "all is done, and nothing was charged",
    }
}

/// `GET /shop/orders`
pub(super) async fn list(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    let Some(user) = &visit.user else {
        return Ok(sign_in_first("/shop/orders"));
    };
    let cursor = Query::of(&uri).cursor()?;
    let page = shop.orders_of(user, PAGE_ROWS, cursor).await?;
    let page = OrdersPage {
        frame: visit.frame,
        orders: page
            .orders
            .iter()
            .map(|(id, record)| OrderView::of(id, record))
            .collect(),
        next: page.next.map(|next| next_page(&uri, &next)),
    };
    Ok(render(None, &page))
}

fn parse(order: &str) -> Result<OrderId> {
    let missing = || Problem::new(problem::ORDER_NOT_FOUND, "You have no order with this id.");
    OrderId::parse(order).ok_or_else(missing)
}

/// `GET /shop/orders/{order}`
pub(super) async fn show(State(app): State<Shared>, Path(order): Path<String>, headers: HeaderMap) -> Page {
    let shop = app.shop()?;
    let visit = app.visit(shop, &Method::GET, &headers).await?;
    let Some(user) = &visit.user else {
        return Ok(sign_in_first(&format!("/shop/orders/{order}")));
    };
    let found = shop.found_order(user, &parse(&order)?).await?;
    Ok(page(visit.frame, &order, &found.record, None))
}

fn page(frame: Frame, order: &str, record: &OrderRecord, refused: Option<&Problem>) -> Response {
    let page = OrderPage {
        frame,
        order: OrderView::of(order, record),
        error: refused.map(|refused| refused.detail.clone()),
    };
    render(refused, &page)
}

/// `POST /shop/orders/{order}/cancel`
pub(super) async fn cancel(State(app): State<Shared>, Path(order): Path<String>, request: Request) -> Page {
    let (shop, read) = (app.shop()?, app.form(request).await?);
    let visit = app.visit(shop, &Method::POST, &read.parts.headers).await?;
    let Some(user) = &visit.user else {
        return Ok(sign_in_first(&format!("/shop/orders/{order}")));
    };
    let id = parse(&order)?;
    let once = read.once(shop, &visit.caller, Some(user.as_str()))?;
    match shop.cancel(user, &id, once.as_ref()).await {
        Ok(checkout) => Ok(see_again(&format!("/shop/orders/{order}"), checkout.replayed)),
        Err(refused) if refused.kind == problem::ORDER_NOT_CANCELABLE => {
            let found = shop.found_order(user, &id).await?;
            Ok(page(visit.frame, &order, &found.record, Some(&refused)))
        }
        Err(problem) => Err(problem.into()),
    }
}
