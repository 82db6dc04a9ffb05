//! Payments by the caller's id: authorize, capture, cancel, refund, look.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use payment_client::wire::{Capture, Payment};
use service::problem::{self, Problem};
use service::query::{self, Query};

use super::reading::{currency, json, literal, money, name};
use super::{Result, Shared};
use crate::domain::{MerchantName, NameFault, OrderRef, PaymentId, RefundId};
use crate::ledger::{Cursor, Named, PageOf, Purchase, Wish};

const PAGE_DEFAULT: u64 = 50;
const PAGE_MAX: u64 = 200;

/// A name in the path.
fn named<T>(text: &str, what: &str, parse: fn(&str) -> std::result::Result<T, NameFault>) -> Result<T> {
    parse(text).map_err(|fault| {
        Problem::new(
            problem::INVALID_REQUEST,
            format!("The `{what}` in the path {fault}."),
        )
        .fault(what, fault.to_string())
    })
}

fn place(id: &PaymentId) -> String {
    format!("/v1/payments/{}", id.segment())
}

/// `PUT /v1/payments/{id}`
pub(super) async fn pay(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.merchant(&parts.headers)?;
    let id = named(&id, "id", PaymentId::parse)?;
    let (mut fields, body) = app.fields(&parts.headers, body).await?;
    let source = app.source(&mut fields);
    let currency = currency(&mut fields, None);
    let amount = money(&mut fields, "amount", currency, app.amount_bounds());
    fields.require("merchant");
    let merchant = name(&mut fields, "merchant", MerchantName::parse);
    let order_ref = name(&mut fields, "order_ref", OrderRef::parse);
    let capture = fields.optional::<Capture>("capture", "\"manual\" or \"automatic\"");
    fields.finish()?;
    let (Some((card, token)), Some(amount), Some(merchant)) = (source, amount, merchant) else {
        unreachable!("what is missing is a fault")
    };
    let mut purchase = Purchase {
        id,
        named: Named::Caller,
        card,
        token,
        money: amount,
        merchant,
        order_ref,
        capture: capture.unwrap_or_default(),
        fingerprint: String::new(),
    };
    purchase.fingerprint = app.fingerprint(&purchase);
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let outcome = app.ledger.pay(&purchase, once.as_ref()).await;
    app.count(&outcome, purchase.capture);
    Ok(outcome?.into_answer(Some(&place(&purchase.id))))
}

/// `POST /v1/payments/{id}/capture`
pub(super) async fn capture(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.merchant(&parts.headers)?;
    let id = named(&id, "id", PaymentId::parse)?;
    let (fields, body) = app.fields(&parts.headers, body).await?;
    let wish = Wish::Capture(literal(&fields, "amount"));
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let reply = app.ledger.resolve(&id, &wish, once.as_ref()).await?;
    Ok(reply.into_answer(None))
}

/// `POST /v1/payments/{id}/cancel`
pub(super) async fn cancel(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.merchant(&parts.headers)?;
    let id = named(&id, "id", PaymentId::parse)?;
    let (_fields, body) = app.fields(&parts.headers, body).await?;
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let reply = app.ledger.resolve(&id, &Wish::Cancel, once.as_ref()).await?;
    Ok(reply.into_answer(None))
}

/// `PUT /v1/payments/{id}/refunds/{rid}`
pub(super) async fn refund(
    State(app): State<Shared>,
    Path((id, refund)): Path<(String, String)>,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = app.merchant(&parts.headers)?;
    let id = named(&id, "id", PaymentId::parse)?;
    let refund = named(&refund, "rid", RefundId::parse)?;
    let (mut fields, body) = app.fields(&parts.headers, body).await?;
    fields.require("amount");
    let amount = literal(&fields, "amount");
    fields.finish()?;
    let amount = amount.expect("what is missing is a fault");
    let once = app.once(caller, (&parts.method, &parts.uri, &parts.headers), &body)?;
    let reply = app.ledger.refund(&id, &refund, &amount, once.as_ref()).await?;
    Ok(reply.into_answer(Some(&place(&id))))
}

/// `GET /v1/payments/{id}`
pub(super) async fn show(
    State(app): State<Shared>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response> {
    app.caller(&headers)?;
    let id = named(&id, "id", PaymentId::parse)?;
    let revision = Query::of(&uri).number("revision")?;
    let payment = app.ledger.payment(&id, revision).await?;
    Ok(json(
        StatusCode::OK,
        serde_json::to_string(&payment).expect("text keys"),
    ))
}

/// `GET /v1/payments`
pub(super) async fn list(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    app.caller(&headers)?;
    let query = Query::of(&uri);
    // A filter that is empty, as forms send it, is none.
    let name = |name: &str| query.text(name).map(|text| text.filter(|text| !text.is_empty()));
    let merchant = name("merchant")?
        .map(|text| in_query("merchant", MerchantName::parse(&text)))
        .transpose()?;
    let order_ref = name("order_ref")?
        .map(|text| in_query("order_ref", OrderRef::parse(&text)))
        .transpose()?;
    let cursor = cursor(&query)?;
    let page = app
        .ledger
        .payments(merchant.as_ref(), order_ref.as_ref(), &cursor)
        .await?;
    Ok(with_next(&uri, &page))
}

fn in_query<T>(name: &str, parsed: std::result::Result<T, NameFault>) -> Result<T> {
    parsed.map_err(|fault| query::malformed(format!("The parameter `{name}` {fault}.")))
}

pub(super) fn cursor(query: &Query<'_>) -> Result<Cursor> {
    let limit = query.number("limit")?.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(query::malformed(format!(
            "The parameter `limit` is a number from 1 to {PAGE_MAX}."
        )));
    }
    Ok(Cursor {
        limit: u32::try_from(limit).expect("it is small"),
        after: query.cursor()?,
        revision: query.number("revision")?,
    })
}

fn with_next(uri: &Uri, page: &PageOf<Payment>) -> Response {
    let body = serde_json::to_string(&page.rows).expect("text keys");
    let mut response = json(StatusCode::OK, body);
    if let Some(next) = &page.next {
        let link = format!("<{}>; rel=\"next\"", query::next_page(uri, next));
        if let Ok(link) = link.try_into() {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}
