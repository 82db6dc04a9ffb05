//! `PaymentClient`: one method a route. Cheap to clone.
//! Invariant: the caller's id stands for one payment or refund; the same call repeated, also by another
//! process, ends in the same payment.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use service::currency::Currency;
use service::money::Money;
use tokio::time::Duration;

use crate::call::{Answer, Caller, FIRST_TRY, FIRST_TRY_OF_PAGE, Request};
use crate::error::{Error, Result};
use crate::wire::{
    Balance, Capture, CardOpened, CardStatus, CardToken, LedgerCheck, Payment, Refund, TrialBalance,
};

const DEADLINE: Duration = Duration::from_secs(5);
/// An instance behind a dead link counts as not reached.
const CONNECT_TIME_MAX: Duration = Duration::from_millis(300);

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[derive(Clone)]
pub struct PaymentClient {
    caller: Arc<Caller>,
    deadline: Duration,
}

/// Collects what a client needs.
#[must_use]
pub struct Builder {
    addresses: Vec<String>,
    token: String,
    deadline: Duration,
}

/// How a payment names its card. It has no `Debug`, so that no log shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    Token(String),
    CardNumber(String),
}

/// What is to be paid, by whom, to whom, for what.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPayment {
    pub source: Source,
    pub amount: Money,
    pub merchant: String,
    pub order_ref: Option<String>,
    pub capture: Capture,
}

#[derive(Serialize)]
struct NewPaymentJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card_number: Option<&'a str>,
    amount: Box<RawValue>,
    currency: Currency,
    merchant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_ref: Option<&'a str>,
    capture: Capture,
}

#[derive(Serialize)]
struct CardJson<'a> {
    card_number: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<CardStatus>,
}

#[derive(Serialize)]
struct AmountJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Box<RawValue>>,
}

impl PaymentClient {
    /// `addresses` are those of some or all instances, `host:port` or `http://host:port`; the token is the
    /// merchant's, or the operator's for cards.
    pub fn builder<T: Into<String>>(
        addresses: impl IntoIterator<Item = T>,
        token: impl Into<String>,
    ) -> Builder {
        Builder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            token: token.into(),
            deadline: DEADLINE,
        }
    }

    /// The same client with another deadline for each call, repetitions included.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Turns a card number into a token, so that it need not be kept anywhere.
    pub async fn tokenize(&self, card_number: &str) -> Result<CardToken> {
        let body = CardJson {
            card_number,
            currency: None,
            balance: None,
            status: None,
        };
        self.ask(Method::POST, "/v1/tokens".to_owned(), &body).await
    }

    /// Authorizes or charges. A decline is final for this id.
    pub async fn pay(&self, id: &str, payment: &NewPayment) -> Result<Payment> {
        let (token, card_number) = match &payment.source {
            Source::Token(token) => (Some(token.as_str()), None),
            Source::CardNumber(number) => (None, Some(number.as_str())),
        };
        let body = NewPaymentJson {
            token,
            card_number,
            amount: payment.amount.to_json(),
            currency: payment.amount.currency,
            merchant: &payment.merchant,
            order_ref: payment.order_ref.as_deref(),
            capture: payment.capture,
        };
        self.ask(Method::PUT, target(&["v1", "payments", id]), &body)
            .await
    }

    /// Takes the held amount, or a part of it and releases the rest.
    pub async fn capture(&self, id: &str, amount: Option<Money>) -> Result<Payment> {
        let body = AmountJson {
            amount: amount.map(Money::to_json),
        };
        self.ask(Method::POST, target(&["v1", "payments", id, "capture"]), &body)
            .await
    }

    /// Releases the hold. An id never seen is canceled for good.
    pub async fn cancel(&self, id: &str) -> Result<Payment> {
        let body = AmountJson { amount: None };
        self.ask(Method::POST, target(&["v1", "payments", id, "cancel"]), &body)
            .await
    }

    pub async fn refund(&self, id: &str, refund: &str, amount: Money) -> Result<Refund> {
        let body = AmountJson {
            amount: Some(amount.to_json()),
        };
        let target = target(&["v1", "payments", id, "refunds", refund]);
        self.ask(Method::PUT, target, &body).await
    }

    /// `None` when this id was never seen.
    pub async fn payment(&self, id: &str) -> Result<Option<Payment>> {
        match self.read(target(&["v1", "payments", id])).await {
            Err(error) if error.code() == "payment-not-found" => Ok(None),
            other => other.map(Some),
        }
    }

    /// All payments for one order: at most 200, which no order has.
    pub async fn payments(&self, merchant: &str, order_ref: &str) -> Result<Vec<Payment>> {
        let (merchant, order_ref) = (encode(merchant), encode(order_ref));
        let query = format!("/v1/payments?merchant={merchant}&order_ref={order_ref}&limit=200");
        self.read(query).await
    }

    /// All payments to a merchant as they stood at this revision of the store, with their transfers, page by page.
    pub fn payments_at(&self, merchant: &str, revision: u64) -> PaymentPages<'_> {
        let merchant = encode(merchant);
        PaymentPages {
            client: self,
            next: Some(format!(
                "/v1/payments?merchant={merchant}&revision={revision}&limit=200"
            )),
        }
    }

    /// Opens the card, or brings it to this balance. Needs the operator's token.
    pub async fn open_card(
        &self,
        card_number: &str,
        balance: Money,
        status: CardStatus,
    ) -> Result<CardOpened> {
        let body = CardJson {
            card_number,
            currency: Some(balance.currency),
            balance: Some(balance.to_json()),
            status: Some(status),
        };
        // Without a key, a repetition after the money was spent would bring it back.
        let key = format!("{:032x}", random());
        let request = Request {
            method: Method::PUT,
            target: "/v1/cards".to_owned(),
            body: json(&body)?,
            idempotency_key: Some(HeaderValue::try_from(key).expect("hex digits are a header value")),
            first_try: FIRST_TRY,
        };
        self.send(request).await
    }

    /// `None` when the card was never opened.
    pub async fn balance(&self, card_number: &str) -> Result<Option<Balance>> {
        let body = CardJson {
            card_number,
            currency: None,
            balance: None,
            status: None,
        };
        match self
            .ask(Method::POST, "/v1/cards/balance".to_owned(), &body)
            .await
        {
            Err(error) if error.code() == "unknown-card" => Ok(None),
            other => other.map(Some),
        }
    }

    /// The trial balance, now or at a revision of the past. It may take the whole deadline where there is one instance,
    /// and half of it where there are several: then it is begun anew at the next one.
    pub async fn check_ledger(&self, revision: Option<u64>) -> Result<LedgerCheck> {
        let query = revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
        // The whole ledger is read for it: to ask twice at the same time would only make it slower.
        self.send(Request::read(format!("/v1/ledger/check{query}"), Duration::MAX))
            .await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: String,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = json(body)?;
        let request = Request {
            method,
            target,
            body,
            idempotency_key: None,
            first_try: FIRST_TRY,
        };
        self.send(request).await
    }

    async fn read<T: DeserializeOwned>(&self, target: String) -> Result<T> {
        self.send(Request::read(target, FIRST_TRY)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let Answer { status, body, .. } = self.caller.call(&request, self.deadline).await?;
        tracing::trace!(http.status = status.as_u16(), "the payment service answered");
        serde_json::from_slice(&body).map_err(Error::Protocol)
    }
}

/// A walk over payments, of which one page is held at a time.
#[derive(Debug)]
pub struct PaymentPages<'c> {
    client: &'c PaymentClient,
    next: Option<String>,
}

impl PaymentPages<'_> {
    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Payment>>> {
        let Some(target) = self.next.take() else {
            return Ok(None);
        };
        let answer = self
            .client
            .caller
            .call(&Request::read(target, FIRST_TRY_OF_PAGE), self.client.deadline)
            .await?;
        self.next = answer.next;
        serde_json::from_slice(&answer.body)
            .map(Some)
            .map_err(Error::Protocol)
    }
}

impl std::fmt::Debug for PaymentClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PaymentClient")
            .field("bases", &self.caller.bases)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl TrialBalance {
    /// Whether what was credited was debited.
    pub fn is_even(&self) -> bool {
        self.debits_minor == self.credits_minor
    }
}

impl Builder {
    /// The time a call may take, repetitions included. 5 seconds unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn build(self) -> Result<PaymentClient> {
        let bases: Vec<String> = self
            .addresses
            .iter()
            .map(|address| {
                if address.contains("://") {
                    address.trim_end_matches('/').to_owned()
                } else {
                    service::http::base(address)
                }
            })
            .collect();
        if bases.is_empty() {
            return Err(Error::Invalid(
                "a client needs the address of at least one payment service".to_owned(),
            ));
        }
        let authorization = HeaderValue::try_from(format!("Bearer {}", self.token));
        let mut authorization =
            authorization.map_err(|error| Error::Invalid(format!("this is no token: {error}")))?;
        authorization.set_sensitive(true);
        let timeouts = service::http::Timeouts {
            connect: CONNECT_TIME_MAX,
            ..service::http::Timeouts::default()
        };
        let start = usize::try_from(random() % bases.len() as u128).unwrap_or(0);
        Ok(PaymentClient {
            caller: Arc::new(Caller {
                http: service::http::client(timeouts),
                bases,
                sticky: AtomicUsize::new(start),
                authorization,
            }),
            deadline: self.deadline,
        })
    }
}

fn json(body: &impl Serialize) -> Result<bytes::Bytes> {
    serde_json::to_vec(body).map(Into::into).map_err(Error::Protocol)
}

fn target(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| {
        path + "/" + &encode(segment).to_string()
    })
}

fn encode(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    u128::from_ne_bytes(bytes)
}
