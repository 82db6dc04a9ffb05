//! Puts records into the words of the contract.
//! Invariant: the answer to a request depends on nothing but its record, so that a repetition gets the same one.

use payment_client::Money;
use payment_client::wire::{Capture, DeclineCode, Payment, Refund, Status, Transfer};
use serde::Serialize;
use service::problem::{self, Problem};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Reply;
use super::records::{PaymentRecord, TransferRecord};
use crate::domain::{PaymentId, RefundId};

pub(crate) fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("answers have only text keys and plain values")
}

/// RFC 3339, to the millisecond.
pub(crate) fn time(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339)
        .unwrap_or_else(|_| OffsetDateTime::UNIX_EPOCH.to_string())
}

/// The payment as it stands.
pub(crate) fn payment(
    id: &str,
    record: &PaymentRecord,
    refunded: i64,
    transfers: Option<Vec<Transfer>>,
) -> Payment {
    let order = record.order.as_ref();
    let money = |minor: i64| order.map(|order| Money::new(minor, order.currency).to_json());
    Payment {
        id: id.to_owned(),
        status: record.status,
        amount: order.and_then(|order| money(order.amount)),
        amount_minor: order.map(|order| order.amount),
        currency: order.map(|order| order.currency),
        merchant: order.map(|order| order.merchant.clone()),
        order_ref: order.and_then(|order| order.order_ref.clone()),
        capture: order.map(|order| order.capture),
        captured: money(record.captured),
        captured_minor: record.captured,
        refunded: money(refunded),
        refunded_minor: refunded,
        brand: order.map(|order| order.brand.clone()),
        last4: order.map(|order| order.last4.clone()),
        decline_code: record.decline,
        created: time(record.created_ms),
        expires: order.and_then(|order| order.expires_ms).map(time),
        transfers,
    }
}

/// What the request that made the payment was answered, whatever became of it since.
pub(crate) fn made(id: &PaymentId, record: &PaymentRecord) -> Payment {
    let first = record.order.as_ref().map(|order| match order.capture {
        Capture::Manual => (Status::Authorized, 0),
        Capture::Automatic => (Status::Captured, order.amount),
    });
    let (status, captured) = first.unwrap_or((record.status, record.captured));
    let record = PaymentRecord {
        status,
        captured,
        ..record.clone()
    };
    payment(id.as_str(), &record, 0, None)
}

/// What a capture or a cancel was answered.
pub(crate) fn resolved(id: &PaymentId, record: &PaymentRecord) -> String {
    json(&payment(id.as_str(), record, 0, None))
}

pub(crate) fn refund(id: &PaymentId, refund: &RefundId, record: &TransferRecord) -> String {
    json(&Refund {
        id: refund.as_str().to_owned(),
        payment: id.to_string(),
        amount: Money::new(record.amount, record.currency).to_json(),
        amount_minor: record.amount,
        currency: record.currency,
        created: time(record.created_ms),
    })
}

pub(crate) fn transfer(record: TransferRecord, refund: Option<String>) -> Transfer {
    Transfer {
        kind: record.kind,
        amount: Money::new(record.amount, record.currency).to_json(),
        amount_minor: record.amount,
        currency: record.currency,
        debit: record.debit,
        credit: record.credit,
        refund,
        created: time(record.created_ms),
    }
}

pub(crate) fn declined(code: DeclineCode, replayed: bool) -> Problem {
    let detail = match code {
        DeclineCode::InsufficientFunds => "The card does not have this much available.",
        DeclineCode::UnknownCard => "No card with this number was ever opened here.",
        DeclineCode::Blocked => "The card is blocked.",
        DeclineCode::CurrencyMismatch => "The card is kept in another currency.",
        DeclineCode::TokenExpired => "The card token can no longer be used.",
        DeclineCode::TokenUsed => "The card token was used for another payment.",
    };
    let declined = Problem::new(problem::CARD_DECLINED, detail).extra("decline_code", code.word());
    if replayed { marked(declined) } else { declined }
}

/// A refusal that was given before.
pub(crate) fn marked(problem: Problem) -> Problem {
    let name = axum::http::HeaderName::from_static(kvstore_client::wire::headers::IDEMPOTENT_REPLAYED);
    problem.header(name, axum::http::HeaderValue::from_static("true"))
}

impl Reply {
    pub(crate) fn first(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            replayed: false,
        }
    }

    pub(crate) fn again(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            replayed: true,
        }
    }
}
