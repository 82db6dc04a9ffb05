//! What is stored, as JSON. These are not the types on the wire; both sides convert by hand.
//! Invariant: a record says everything that a repetition of its request needs to get the same answer.

use bytes::Bytes;
use payment_client::Currency;
use payment_client::wire::{Capture, CardStatus, DeclineCode, Status, TransferKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::problem::{Problem, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CardRecord {
    pub(crate) brand: String,
    pub(crate) last4: String,
    pub(crate) currency: Currency,
    pub(crate) status: CardStatus,
    /// How often money came or went from outside; the next such transfer has this number.
    pub(crate) fundings: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentRecord {
    pub(crate) status: Status,
    pub(crate) created_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) captured: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decline: Option<DeclineCode>,
    /// `None` for an id that was canceled before it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<OrderRecord>,
}

/// What was asked for, which never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    pub(crate) fingerprint: String,
    pub(crate) card: String,
    pub(crate) brand: String,
    pub(crate) last4: String,
    pub(crate) merchant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order_ref: Option<String>,
    pub(crate) amount: i64,
    pub(crate) currency: Currency,
    pub(crate) capture: Capture,
    /// Of the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransferRecord {
    pub(crate) kind: TransferKind,
    pub(crate) debit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) credit: Option<String>,
    pub(crate) amount: i64,
    pub(crate) currency: Currency,
    pub(crate) created_ms: u64,
}

/// The first answer to an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnswerRecord {
    pub(crate) fingerprint: String,
    pub(crate) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decline: Option<DeclineCode>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

pub(crate) fn write(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record)
        .expect("records have only text keys and plain values")
        .into()
}

/// What this service wrote and cannot read is damage, and never taken for absence.
pub(crate) fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| Problem::internal(&format!("read {key}"), error))
}

pub(crate) fn read_int(key: &str, value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.parse()
        .map_err(|error: std::num::ParseIntError| Problem::internal(&format!("read {key}"), error))
}
