//! Two requests with one `Idempotency-Key` that arrive together: whoever is later answers what the first was answered,
//! and another content is refused as that, whichever step the later one had got to when the first was done.

use payment::Moment::{self, AfterCommit, AfterRead, BeforeCommit, BeforeRead};
use reqwest::Method;
use serde_json::{Value, json};
use service::tasks::Tasks;

use crate::harness::{Answer, Client};
use crate::system::{MASTERCARD, STRANGER, System, VISA, order, pay};

/// A write, and others with the same key that it makes impossible.
struct Case {
    name: &'static str,
    /// What is there before.
    hold: Option<&'static str>,
    write: (Method, &'static str, Value),
    /// Where a repetition may stand when the write is done.
    twin_at: &'static [(&'static str, Moment)],
    /// Another request with the key, and where it may stand.
    other: (Method, &'static str, Value),
    other_at: &'static [(&'static str, Moment)],
}

fn cases() -> Vec<Case> {
    let mut all = ends_of_a_hold();
    all.extend(refunds_and_cards());
    all.extend(payments());
    all
}

fn ends_of_a_hold() -> Vec<Case> {
    vec![
        Case {
            name: "capture",
            hold: Some("manual"),
            write: (Method::POST, "/v1/payments/p/capture", json!({"amount": 4})),
            twin_at: &[
                ("capture", BeforeRead),
                ("capture", AfterRead),
                ("capture", BeforeCommit),
            ],
            other: (Method::POST, "/v1/payments/p/capture", json!({"amount": 5})),
            other_at: &[
                ("capture", BeforeRead),
                ("capture", AfterRead),
                ("capture", BeforeCommit),
            ],
        },
        Case {
            name: "capture, then a cancel",
            hold: Some("manual"),
            write: (Method::POST, "/v1/payments/p/capture", json!({})),
            twin_at: &[("capture", BeforeRead)],
            other: (Method::POST, "/v1/payments/p/cancel", json!({})),
            other_at: &[
                ("cancel", BeforeRead),
                ("cancel", AfterRead),
                ("cancel", BeforeCommit),
            ],
        },
        Case {
            name: "cancel",
            hold: Some("manual"),
            write: (Method::POST, "/v1/payments/p/cancel", json!({})),
            twin_at: &[
                ("cancel", BeforeRead),
                ("cancel", AfterRead),
                ("cancel", BeforeCommit),
            ],
            other: (Method::POST, "/v1/payments/p/capture", json!({})),
            other_at: &[
                ("capture", BeforeRead),
                ("capture", AfterRead),
                ("capture", BeforeCommit),
            ],
        },
    ]
}

fn refunds_and_cards() -> Vec<Case> {
    let card = |currency: &str| json!({"card_number": STRANGER, "currency": currency, "balance": 5});
    vec![
        Case {
            name: "tombstone",
            hold: None,
            write: (Method::POST, "/v1/payments/p/cancel", json!({})),
            twin_at: &[("cancel", BeforeRead), ("cancel", BeforeCommit)],
            other: (Method::PUT, "/v1/payments/p/refunds/r", json!({"amount": 1})),
            other_at: &[("refund", BeforeRead)],
        },
        Case {
            name: "refund",
            hold: Some("automatic"),
            write: (Method::PUT, "/v1/payments/p/refunds/r", json!({"amount": 6})),
            twin_at: &[
                ("refund", BeforeRead),
                ("refund", AfterRead),
                ("refund", BeforeCommit),
            ],
            other: (Method::PUT, "/v1/payments/p/refunds/s", json!({"amount": 7})),
            other_at: &[
                ("refund", BeforeRead),
                ("refund", AfterRead),
                ("refund", BeforeCommit),
            ],
        },
        Case {
            name: "card",
            hold: None,
            write: (Method::PUT, "/v1/cards", card("EUR")),
            twin_at: &[("card", BeforeRead), ("card", AfterRead), ("card", BeforeCommit)],
            other: (Method::PUT, "/v1/cards", card("USD")),
            other_at: &[("card", BeforeRead), ("card", AfterRead), ("card", BeforeCommit)],
        },
    ]
}

fn payments() -> Vec<Case> {
    vec![
        Case {
            name: "pay",
            hold: None,
            write: (Method::PUT, "/v1/payments/p", order(VISA, 10.0, "manual")),
            twin_at: &[("pay", BeforeCommit)],
            other: (Method::PUT, "/v1/payments/p", order(VISA, 11.0, "manual")),
            other_at: &[("pay", BeforeCommit)],
        },
        Case {
            name: "decline",
            hold: None,
            write: (Method::PUT, "/v1/payments/p", order(STRANGER, 10.0, "manual")),
            twin_at: &[
                ("pay", BeforeCommit),
                ("pay", AfterCommit),
                ("decline", BeforeCommit),
            ],
            other: (Method::PUT, "/v1/payments/q", order(STRANGER, 10.0, "manual")),
            other_at: &[
                ("pay", BeforeCommit),
                ("pay", AfterCommit),
                ("decline", BeforeCommit),
            ],
        },
        Case {
            name: "one-shot",
            hold: None,
            write: (
                Method::POST,
                "/payments",
                json!({"card_number": MASTERCARD, "amount": 300}),
            ),
            twin_at: &[("pay", BeforeCommit)],
            other: (
                Method::POST,
                "/payments",
                json!({"card_number": MASTERCARD, "amount": 301}),
            ),
            other_at: &[("pay", BeforeCommit)],
        },
    ]
}

async fn keyed(client: Client, (method, target, body): (Method, &'static str, Value)) -> Answer {
    let request = client.request(method, target).json(&body);
    client.send(request.header("idempotency-key", "key")).await
}

/// The later one is held at the first instance until the write is done at the second.
async fn late(
    case: &Case,
    later: &(Method, &'static str, Value),
    at: (&'static str, Moment),
) -> (Answer, Answer) {
    let system = System::start_with(1, 2, |_config| {}).await;
    if let Some(capture) = case.hold {
        pay(&system.merchant(), "p", &order(VISA, 10.0, capture))
            .await
            .expect(201);
    }
    let token = if case.name == "card" {
        "operator"
    } else {
        "merchant"
    };
    let trap = system.trap(0);
    trap.arm(at.0, at.1);
    let held = Tasks::new().spawn("later", keyed(system.at(0, token), later.clone()));
    trap.caught().await;
    let first = keyed(system.at(1, token), case.write.clone()).await;
    assert_eq!(
        first.header("idempotent-replayed"),
        "",
        "{}: {}",
        case.name,
        first.text()
    );
    trap.release();
    let second = held.await.unwrap();
    system.stop().await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_answers_what_the_first_was_answered() {
    for case in cases() {
        for at in case.twin_at {
            let (first, second) = late(&case, &case.write, *at).await;
            let told = format!("{} at {at:?}: {}", case.name, second.text());
            assert_eq!(second.header("idempotent-replayed"), "true", "{told}");
            assert_eq!(second.status, first.status, "{told}");
            if first.status < 300 {
                assert_eq!(second.text(), first.text(), "{told}");
            } else {
                assert_eq!(second.code(), first.code(), "{told}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_request_with_the_key_is_told_just_that() {
    for case in cases() {
        for at in case.other_at {
            let (_, second) = late(&case, &case.other, *at).await;
            let told = format!("{} at {at:?}: {}", case.name, second.text());
            assert_eq!(
                (second.status, second.code().as_str()),
                (422, "idempotency-key-reused"),
                "{told}"
            );
        }
    }
}
