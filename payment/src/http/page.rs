//! The ledger as pages for the operator: read-only, without scripts, and complete without any.
//! Invariant: nothing is shown without the operator's token; templates escape everything; cards are masked.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse as _, Response};
use payment_client::Money;
use payment_client::wire::{CardStatus, LedgerCheck, Payment};
use service::problem::{self, Problem};
use service::query::{Query, next_page};

use super::ledger::proof;
use super::payments::cursor;
use super::{Result, Shared};
use crate::ledger::CardRow;

const STYLE: &str = include_str!("../../templates/ledger.css");
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "accounts.html")]
struct Accounts {
    /// On the first page only: each reads the whole ledger.
    check: Option<LedgerCheck>,
    cards: Vec<CardLine>,
    next: Option<String>,
}

struct CardLine {
    brand: String,
    last4: String,
    currency: &'static str,
    available: String,
    held: String,
    credits: String,
    debits: String,
    blocked: bool,
}

#[derive(Template)]
#[template(path = "payments.html")]
struct PaymentsPage {
    payments: Vec<Payment>,
    revision: u64,
    next: Option<String>,
}

impl From<CardRow> for CardLine {
    fn from(row: CardRow) -> Self {
        let (record, state) = (&row.state.record, &row.state);
        let money = |minor| Money::new(minor, record.currency).to_string();
        Self {
            brand: record.brand.clone(),
            last4: record.last4.clone(),
            currency: record.currency.code(),
            available: money(state.available),
            held: money(state.holds),
            credits: money(state.credits),
            debits: money(state.debits),
            blocked: record.status == CardStatus::Blocked,
        }
    }
}

/// Makes the browser ask for a name and a password.
fn ask_for_password() -> Response {
    let problem = Problem::new(
        problem::UNAUTHORIZED,
        "These pages are for the operator: any name, and the operator's token as the password.",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"ledger\", charset=\"UTF-8\""),
    );
    response
}

fn render(page: &impl Template) -> Result<Response> {
    let html = page
        .render()
        .map_err(|error| Problem::internal("lay out a page", error))?;
    let mut response = Html(html).into_response();
    let headers = response.headers_mut();
    let value = HeaderValue::from_static;
    headers.insert(header::CONTENT_SECURITY_POLICY, value(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    headers.insert(header::REFERRER_POLICY, value("no-referrer"));
    headers.insert(header::CACHE_CONTROL, value("no-store"));
    Ok(response)
}

/// `GET /ledger`: the trial balance and the accounts.
pub(super) async fn accounts(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    if !app.operator_of_page(&headers) {
        return Ok(ask_for_password());
    }
    let cursor = cursor(&Query::of(&uri))?;
    let cards = app.ledger.cards(&cursor).await?;
    let check = match cursor.after {
        None => Some(proof(&app, Some(cards.revision)).await?),
        Some(_) => None,
    };
    render(&Accounts {
        check,
        next: cards.next.as_deref().map(|next| next_page(&uri, next)),
        cards: cards.rows.into_iter().map(CardLine::from).collect(),
    })
}

/// `GET /ledger/payments`: payments with their transfers.
pub(super) async fn payments(State(app): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response> {
    if !app.operator_of_page(&headers) {
        return Ok(ask_for_password());
    }
    let cursor = cursor(&Query::of(&uri))?;
    let page = app.ledger.payments(None, None, &cursor).await?;
    render(&PaymentsPage {
        revision: page.revision,
        next: page.next.as_deref().map(|next| next_page(&uri, next)),
        payments: page.rows,
    })
}

/// `GET /ledger.css`
pub(super) async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (StatusCode::OK, headers, STYLE).into_response()
}
