//! Answers that no instance gives.
//! Invariant: each is a value of the contract, a refusal, or a reason to ask again; and where the next page is, nobody
//! else is asked for it.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;

use super::{Answer, Caller, FIRST_TRY, Refusal, Request, decided, next_of};
use crate::bent::feed;
use crate::error::Error;
use crate::wire::{Balance, CardOpened, CardToken, LedgerCheck, Payment, Refund};

const PAYMENT: &str = r#"{"id": "p/1", "status": "captured", "amount": 12.50, "amount_minor": 1250, "currency": "EUR",
"merchant": "shop", "order_ref": "o", "capture": "manual", "captured": 1e1, "captured_minor": 1000, "refunded": 0.00,
"refunded_minor": 0, "brand": "visa", "last4": "4242", "created": "2023-11-14T22:13:20Z", "transfers": [{"kind": "hold",
"debit": "card:c", "amount": 12.50, "amount_minor": 9223372036854775807, "currency": "EUR", "created": "t"}]}"#;
const CARD: &str = r#"{"card": {"id": "c", "brand": "visa", "last4": "4242", "currency": "JPY", "status": "active"},
"balance": 5, "balance_minor": 5}"#;
const BALANCE: &str = r#"{"id": "c", "brand": "visa", "last4": "4242", "currency": "EUR", "balance": -0.01,
"balance_minor": -1, "held_minor": 3, "status": "blocked"}"#;
const REFUND: &str = r#"{"id": "r", "payment": "p/1", "amount": 0.01, "amount_minor": 1, "currency": "EUR",
"created": "t"}"#;
const LEDGER: &str = r#"{"revision": 9, "balanced": true, "currencies": [{"currency": "KWD", "debits": 0.001,
"debits_minor": 1, "credits": 0.001, "credits_minor": 1, "holds": 0, "holds_minor": 0}], "violations": ["v"]}"#;
const CANCELED: &str = r#"{"id": "p", "status": "canceled", "created": "t"}"#;

/// Answers whether the bytes are any answer of the contract.
fn is_read(bytes: &[u8]) -> bool {
    let payment = serde_json::from_slice::<Payment>(bytes);
    if let Ok(payment) = &payment
        && let Some(money) = payment.money()
    {
        assert_eq!(money.to_json().get(), money.to_string());
    }
    let ledger = serde_json::from_slice::<LedgerCheck>(bytes);
    for sums in ledger.iter().flat_map(|ledger| &ledger.currencies) {
        sums.is_even();
    }
    let read = [
        payment.is_ok(),
        ledger.is_ok(),
        serde_json::from_slice::<Vec<Payment>>(bytes).is_ok(),
        serde_json::from_slice::<CardOpened>(bytes).is_ok(),
        serde_json::from_slice::<Balance>(bytes).is_ok(),
        serde_json::from_slice::<CardToken>(bytes).is_ok(),
        serde_json::from_slice::<Refund>(bytes).is_ok(),
    ];
    read.contains(&true)
}

#[test]
fn values() {
    let page = format!("[{PAYMENT}, {CANCELED}]");
    let token = r#"{"token": "t", "brand": "visa", "last4": "4242"}"#;
    let whole = [PAYMENT, CARD, BALANCE, REFUND, LEDGER, CANCELED, &page, token];
    for text in whole {
        assert!(is_read(text.as_bytes()), "refused: {text}");
    }
    feed(&whole.map(|text| text.as_bytes().to_vec()), |bytes| {
        is_read(bytes);
    });
}

fn caller() -> Caller {
    Caller {
        http: service::http::client(service::http::Timeouts::default()),
        bases: vec!["http://127.0.0.1:7201".to_owned()],
        sticky: AtomicUsize::new(0),
        authorization: HeaderValue::from_static("Bearer the token of a merchant"),
    }
}

/// Answers whether there is a way to the page.
fn goes_on(caller: &Caller, target: String) -> bool {
    let base = &caller.bases[0];
    let outgoing = caller.outgoing(base, &Request::read(target, FIRST_TRY), None);
    let Ok(outgoing) = outgoing else { return false };
    assert_eq!(outgoing.url().origin().ascii_serialization(), *base);
    true
}

/// The status, the header that leads to the next page, the body. Answers what the call ends with.
fn judge(caller: &Caller, bytes: &[u8]) -> Option<String> {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let status = StatusCode::from_bytes(lines.next()?).ok()?;
    let link = HeaderValue::from_bytes(lines.next()?).ok()?;
    let next = link.to_str().ok().and_then(next_of);
    let body = Bytes::copy_from_slice(lines.next()?);
    Some(match decided(status, next, body) {
        Ok(Answer { next: None, .. }) => "done".to_owned(),
        Ok(Answer {
            next: Some(target), ..
        }) => {
            if goes_on(caller, target) {
                "more".to_owned()
            } else {
                "lost".to_owned()
            }
        }
        Err(Refusal::Final(error)) => {
            let decline = matches!(error, Error::Declined { .. });
            format!("{} {decline}", error.code())
        }
        Err(Refusal::Again(trouble)) => format!("again {}", trouble.code()),
    })
}

#[test]
fn decisions() {
    let caller = caller();
    let whole = [
        ("200\n\n{}", "done"),
        ("200\n</v1/payments?cursor=x&limit=200>; rel=\"next\"\n[]", "more"),
        (
            "402\n\n{\"code\": \"declined\", \"decline_code\": \"insufficient-funds\"}",
            "declined true",
        ),
        (
            "402\n\n{\"code\": \"declined\", \"decline_code\": \"a word of later\"}",
            "declined false",
        ),
        (
            "409\n\n{\"code\": \"payment-canceled\", \"errors\": []}",
            "payment-canceled false",
        ),
        ("503\n\n{\"code\": \"overloaded\"}", "again overloaded"),
        ("502\n\n<html>", "again "),
    ];
    for (text, told) in whole {
        assert_eq!(judge(&caller, text.as_bytes()).as_deref(), Some(told), "{text}");
    }
    feed(&whole.map(|(text, _)| text.as_bytes().to_vec()), |bytes| {
        drop(judge(&caller, bytes));
    });
}

#[test]
fn a_page_that_is_elsewhere_is_not_asked_for() {
    let caller = caller();
    for elsewhere in [
        "@evil.example/",
        "0@evil.example/",
        "http://evil.example/",
        ".evil.example",
        "",
    ] {
        assert!(!goes_on(&caller, elsewhere.to_owned()), "{elsewhere}");
    }
    for here in ["/v1/payments?cursor=x", "//evil.example/", "/\\evil.example"] {
        assert!(goes_on(&caller, here.to_owned()), "{here}");
    }
    let link = "<@evil.example/>; rel=\"next\"";
    assert_eq!(next_of(link).map(|target| goes_on(&caller, target)), Some(false));
}
