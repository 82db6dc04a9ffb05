//! Requests that no honest caller sends. There is no store: what is understood waits for one.
//! Invariant: each is understood or refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use payment_client::{Currency, Money};
use service::config::PaymentConfig;
use service::edge;
use service::metrics::Metrics;
use service::secrets::Secret;

use super::{App, Counters, Throttle, router};
use crate::bent::feed;
use crate::bent_requests::{feed_requests, runtime};
use crate::domain::{CardNumber, MerchantName};
use crate::ledger::Ledger;
use crate::vault::Vault;

const MERCHANT: &str = "the token of the merchant";
const OPERATOR: &str = "the token of the operator";
const CARD: &str = r#""card_number": "4242 4242-4242 4242""#;

fn vault() -> Vault {
    Vault::new(&Secret::new("a key for these tests"))
}

fn app() -> axum::Router {
    let config = PaymentConfig::default();
    let metrics = Metrics::new();
    let app = App {
        ledger: Ledger::nowhere(&config),
        vault: vault(),
        merchant: MerchantName::parse("demo").expect("it is a name"),
        currency: Currency::EUR,
        merchant_token: Secret::new(MERCHANT),
        operator_token: Secret::new(OPERATOR),
        counters: Counters::new(&metrics),
        metrics,
        checks: App::checks(),
        throttle: Throttle::new(config.open_per_s_max),
        config,
    };
    edge::wrap(router(app), "pay1")
}

/// With an idempotency key.
fn request(line: &str, token: &str, body: &str) -> String {
    format!("{line}\nauthorization: Bearer {token}\nidempotency-key: k-1\n\n{body}")
}

fn feed_app(whole: &[String]) {
    let runtime = runtime();
    let _entered = runtime.enter();
    feed_requests(&app(), whole);
}

#[test]
fn cards() {
    feed_app(&[
        request(
            "PUT /v1/cards",
            OPERATOR,
            &format!(r#"{{{CARD}, "currency": "EUR", "balance": 12.50, "status": "active"}}"#),
        ),
        request("POST /v1/cards/balance", MERCHANT, &format!("{{{CARD}}}")),
        request(
            "POST /v1/tokens",
            MERCHANT,
            &format!(r#"{{{CARD}, "exp_month": 12, "exp_year": 99, "cvc": "123"}}"#),
        ),
    ]);
}

#[test]
fn payments() {
    let number = CardNumber::parse("4242424242424242").expect("it is one");
    let token = vault().seal(&number, u64::MAX);
    let rest =
        r#""amount": 299.99, "currency": "EUR", "merchant": "shop", "order_ref": "o-1", "capture": "manual""#;
    feed_app(&[
        request("PUT /v1/payments/p%201", MERCHANT, &format!("{{{CARD}, {rest}}}")),
        request(
            "PUT /v1/payments/p2",
            MERCHANT,
            &format!(r#"{{"token": "{token}", {rest}}}"#),
        ),
        request("POST /payments", MERCHANT, &format!("{{{CARD}, {rest}}}")),
    ]);
}

#[test]
fn what_becomes_of_payments() {
    feed_app(&[
        request("POST /v1/payments/p1/capture", MERCHANT, r#"{"amount": 1e2}"#),
        request("POST /v1/payments/p1/cancel", MERCHANT, "{}"),
        request(
            "PUT /v1/payments/p1/refunds/r%C3%A9",
            MERCHANT,
            r#"{"amount": 0.01}"#,
        ),
    ]);
}

#[test]
fn queries() {
    let password = STANDARD.encode(format!("anybody:{OPERATOR}"));
    let page = |line: &str| format!("{line}\nauthorization: Basic {password}\n\n");
    feed_app(&[
        request(
            "GET /v1/payments?merchant=a+shop&order_ref=o%2F1&limit=200&cursor=x&revision=7",
            MERCHANT,
            "",
        ),
        request("GET /v1/payments/p1?revision=7", MERCHANT, ""),
        request("GET /v1/ledger/check?revision=7", OPERATOR, ""),
        page("GET /ledger?limit=1&cursor=x"),
        page("GET /ledger/payments?revision=18446744073709551615"),
    ]);
}

/// Some amounts are read only when the currency is known, behind the first look into the store.
#[test]
fn amounts() {
    let whole = ["0.30", "10000000000.00", "1e2", "-0.0", "12E-1"];
    for text in whole {
        assert!(Money::of_literal(text, Currency::EUR).is_ok(), "refused: {text}");
    }
    let whole = whole.map(|text| text.as_bytes().to_vec());
    feed(&whole, |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(money) = Money::of_literal(text, Currency::EUR)
        {
            assert_eq!(Money::of_literal(&money.to_string(), Currency::EUR), Ok(money));
        }
    });
}
