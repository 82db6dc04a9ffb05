//! Reads the parts that several requests have in common, and gathers their faults.
//! Invariant: what is returned is right or the fault is noted; a card number goes into `CardNumber` and nowhere else.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use payment_client::wire::Capture;
use payment_client::{Currency, Money};
use service::fields::Fields;
use service::problem;
use zeroize::Zeroizing;

use super::state::App;
use crate::domain::{CardFault, CardNumber, NameFault};
use crate::ledger::{Purchase, Reply};
use crate::vault::{CardRef, OpenedToken};

pub(super) fn card_number(fields: &mut Fields) -> Option<CardNumber> {
    let text = Zeroizing::new(fields.text("card_number")?);
    match CardNumber::parse(&text) {
        Ok(number) => Some(number),
        Err(fault @ CardFault::Invalid) => {
            fields.fault_of(problem::INVALID_CARD_NUMBER, "card_number", fault);
            None
        }
        Err(fault @ CardFault::UnsupportedBrand) => {
            fields.fault_of(problem::UNSUPPORTED_BRAND, "card_number", fault);
            None
        }
    }
}

/// A name in a body; `None` where it is absent, which is a fault only if it is required.
pub(super) fn name<T>(fields: &mut Fields, name: &str, parse: fn(&str) -> Result<T, NameFault>) -> Option<T> {
    let text = fields.optional_text(name)?;
    match parse(&text) {
        Ok(parsed) => Some(parsed),
        Err(fault) => {
            fields.fault(name, fault);
            None
        }
    }
}

pub(super) fn currency(fields: &mut Fields, default: Option<Currency>) -> Option<Currency> {
    if !fields.has("currency") {
        if default.is_none() {
            fields.require("currency");
        }
        return default;
    }
    let text = fields.optional_text("currency")?;
    match text.parse() {
        Ok(currency) => Some(currency),
        Err(fault) => {
            fields.fault("currency", fault);
            None
        }
    }
}

/// From the digits as they were sent. Without a currency the digits are looked at all the same.
pub(super) fn money(
    fields: &mut Fields,
    name: &str,
    currency: Option<Currency>,
    (min, max): (i64, i64),
) -> Option<Money> {
    fields.require(name);
    let literal = fields.raw(name)?.get().to_owned();
    let money = match Money::of_literal(&literal, currency.unwrap_or(Currency::EUR)) {
        Ok(money) => money,
        Err(fault) => {
            fields.fault(name, fault);
            return None;
        }
    };
    if !(min..=max).contains(&money.minor) {
        let bounds = [min, max].map(|minor| Money::new(minor, money.currency));
        fields.fault(
            name,
            format_args!("must be {} to {} {}", bounds[0], bounds[1], money.currency),
        );
        return None;
    }
    currency.map(|_| money)
}

/// The literal of an amount whose currency only the ledger knows.
pub(super) fn literal(fields: &Fields, name: &str) -> Option<String> {
    fields.raw(name).map(|raw| raw.get().to_owned())
}

impl App {
    /// The card of a payment: by a token or by its number, and not by both.
    pub(super) fn source(&self, fields: &mut Fields) -> Option<(CardRef, Option<OpenedToken>)> {
        match (fields.has("token"), fields.has("card_number")) {
            (true, true) => {
                fields.fault("token", "excludes `card_number`: name the card in one way");
                None
            }
            (true, false) => {
                let opened = self.vault.open(&fields.optional_text("token")?);
                if opened.is_none() {
                    fields.fault("token", "is no token that POST /v1/tokens of this system made");
                }
                opened.map(|opened| (opened.card.clone(), Some(opened)))
            }
            (false, _) => {
                let number = card_number(fields)?;
                Some((self.vault.card(&number), None))
            }
        }
    }

    pub(super) fn amount_bounds(&self) -> (i64, i64) {
        let max = i64::try_from(self.config.amount_minor_max).unwrap_or(Money::MINOR_MAX);
        (1, max.min(Money::MINOR_MAX))
    }

    /// Stands for the content of a payment, however its card was named.
    pub(super) fn fingerprint(&self, purchase: &Purchase) -> String {
        let capture: &[u8] = match purchase.capture {
            Capture::Manual => b"manual",
            Capture::Automatic => b"automatic",
        };
        let order_ref = purchase.order_ref.as_ref().map_or("", |order| order.as_str());
        self.vault.fingerprint(
            "payment",
            &[
                purchase.card.id.as_str().as_bytes(),
                &purchase.money.minor.to_be_bytes(),
                purchase.money.currency.code().as_bytes(),
                purchase.merchant.as_str().as_bytes(),
                order_ref.as_bytes(),
                capture,
            ],
        )
    }

    pub(super) fn count(&self, outcome: &Result<Reply, problem::Problem>, capture: Capture) {
        let word = match outcome {
            Ok(reply) if reply.replayed => return,
            Ok(_) if capture == Capture::Manual => "authorized",
            Ok(_) => "captured",
            Err(problem) if problem.kind == problem::CARD_DECLINED && problem.headers.is_empty() => {
                "declined"
            }
            Err(_) => return,
        };
        self.counters.payments.with_label_values(&[word]).inc();
    }
}

const REPLAYED: HeaderName = HeaderName::from_static(kvstore_client::wire::headers::IDEMPOTENT_REPLAYED);

impl Reply {
    /// With the place of what was made, where there is one.
    pub(super) fn into_answer(self, location: Option<&str>) -> Response {
        let status = StatusCode::from_u16(self.status).expect("the ledger answers with valid statuses");
        let mut response = json(status, self.body);
        let headers = response.headers_mut();
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(location) = location
            && let Ok(location) = HeaderValue::try_from(location)
        {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// An answer that no cache may keep.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}
