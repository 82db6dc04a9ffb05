//! The JSON of the payment contract. Field names are the contract's, to the letter.
//! Amounts travel twice: as a decimal for people (`amount`) and as minor units for programs (`amount_minor`).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::currency::Currency;
use service::money::Money;

/// What a card is known by: never its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub id: String,
    pub brand: String,
    pub last4: String,
    pub currency: Currency,
    pub status: CardStatus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CardStatus {
    #[default]
    Active,
    Blocked,
}

/// Answer of `PUT /v1/cards`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CardOpened {
    pub card: Card,
    pub balance: Box<RawValue>,
    pub balance_minor: i64,
}

/// Answer of `POST /v1/cards/balance`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Balance {
    pub id: String,
    pub brand: String,
    pub last4: String,
    pub currency: Currency,
    /// What can be spent: credits less debits less holds.
    pub balance: Box<RawValue>,
    pub balance_minor: i64,
    pub held_minor: i64,
    pub status: CardStatus,
}

/// Answer of `POST /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardToken {
    pub token: String,
    pub brand: String,
    pub last4: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// Holds the amount until it is captured or canceled.
    #[default]
    Manual,
    /// Takes the amount at once.
    Automatic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Authorized,
    Captured,
    Canceled,
    Expired,
    Declined,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Declined => "declined",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeclineCode {
    InsufficientFunds,
    UnknownCard,
    Blocked,
    CurrencyMismatch,
    TokenExpired,
    TokenUsed,
}

impl DeclineCode {
    pub fn word(self) -> &'static str {
        match self {
            Self::InsufficientFunds => "insufficient-funds",
            Self::UnknownCard => "unknown-card",
            Self::Blocked => "blocked",
            Self::CurrencyMismatch => "currency-mismatch",
            Self::TokenExpired => "token-expired",
            Self::TokenUsed => "token-used",
        }
    }
}

/// A payment. One that was canceled before it was ever seen has an id and a status and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payment {
    pub id: String,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_ref: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured: Option<Box<RawValue>>,
    #[serde(default)]
    pub captured_minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refunded: Option<Box<RawValue>>,
    #[serde(default)]
    pub refunded_minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last4: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<DeclineCode>,
    /// RFC 3339.
    pub created: String,
    /// When the hold ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Only where the payment is read, not where it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfers: Option<Vec<Transfer>>,
}

impl Payment {
    /// What was asked for; `None` for an id that was canceled before it was seen.
    pub fn money(&self) -> Option<Money> {
        Some(Money::new(self.amount_minor?, self.currency?))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    /// Money is set aside on the card.
    Hold,
    /// Money goes from the card to the merchant in one step.
    Charge,
    /// A hold ends and money goes from the card to the merchant.
    Capture,
    /// A hold ends and nothing moves.
    Release,
    /// Money goes back from the merchant to the card.
    Refund,
    /// Money comes to the card from outside.
    Fund,
    /// Money leaves the card to the outside.
    Withdraw,
}

/// An immutable record of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transfer {
    pub kind: TransferKind,
    /// The account that pays; for a hold or a release, the card alone.
    pub debit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<String>,
    pub amount: Box<RawValue>,
    pub amount_minor: i64,
    pub currency: Currency,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund: Option<String>,
    pub created: String,
}

/// Answer of `PUT /v1/payments/{id}/refunds/{rid}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    pub payment: String,
    pub amount: Box<RawValue>,
    pub amount_minor: i64,
    pub currency: Currency,
    pub created: String,
}

/// Answer of `GET /v1/ledger/check`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerCheck {
    pub revision: u64,
    pub balanced: bool,
    pub currencies: Vec<TrialBalance>,
    pub violations: Vec<String>,
}

/// All accounts of one currency together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrialBalance {
    pub currency: Currency,
    pub debits: Box<RawValue>,
    pub debits_minor: i64,
    pub credits: Box<RawValue>,
    pub credits_minor: i64,
    pub holds: Box<RawValue>,
    pub holds_minor: i64,
}

impl TransferKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Charge => "charge",
            Self::Capture => "capture",
            Self::Release => "release",
            Self::Refund => "refund",
            Self::Fund => "fund",
            Self::Withdraw => "withdraw",
        }
    }
}
