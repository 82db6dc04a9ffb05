//! The writes of the payment service, the points that each of them passes, and what must be there in the end.
//! Invariant: whatever happens at a point, the end is the same once the request was repeated until it was answered.

use payment::Moment::{self, AfterCommit, AfterRead, BeforeCommit, BeforeRead};
use reqwest::Method;
use serde_json::{Value, json};

/// The card of every payment here that is made.
pub(crate) const CARD: &str = "4242 4242 4242 4242";
/// Known, with nothing on it.
const EMPTY: &str = "4000 0000 0000 9995";
/// Valid, but opened nowhere.
const STRANGER: &str = "6011 1111 1111 1117";

/// Method, target and body.
pub(crate) type Write = (Method, String, Value);

/// Step, moment, and whether all is done by then.
pub(crate) type Point = (&'static str, Moment, bool);

/// One kind of write.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// How the payment was made that it is about.
    pub(crate) before: Option<&'static str>,
    pub(crate) request: fn(&str) -> Write,
    pub(crate) points: Vec<Point>,
    /// What is answered the first time and every other time.
    pub(crate) answers: (u16, u16),
    /// What the payment is in the end, and its transfers.
    pub(crate) left: (&'static str, &'static [&'static str]),
    /// What all of it changes on the card, available and held.
    pub(crate) moved: (i64, i64),
}

pub(crate) fn payment(card: &str, capture: &str) -> Value {
    json!({"card_number": card, "amount": 10, "currency": "EUR", "merchant": "shop", "capture": capture})
}

fn pay(id: &str, card: &str, capture: &str) -> Write {
    (Method::PUT, format!("/v1/payments/{id}"), payment(card, capture))
}

/// A commit and nothing else.
fn commit(step: &'static str) -> Vec<Point> {
    vec![(step, BeforeCommit, false), (step, AfterCommit, true)]
}

/// A read, then a commit.
fn both(step: &'static str) -> Vec<Point> {
    let mut points = vec![(step, BeforeRead, false), (step, AfterRead, false)];
    points.extend(commit(step));
    points
}

pub(crate) fn subjects() -> Vec<Subject> {
    let mut all = payments();
    all.extend(later_steps());
    all
}

fn payments() -> Vec<Subject> {
    let paid = |name, request, answers, left, moved| Subject {
        name,
        before: None,
        request,
        points: commit("pay"),
        answers,
        left,
        moved,
    };
    let mut unknown = paid(
        "a payment from an unknown card",
        |id| pay(id, STRANGER, "manual"),
        (402, 402),
        ("declined", &[]),
        (0, 0),
    );
    // The first transaction only finds out why; the second one writes it down.
    unknown.points = vec![("pay", BeforeCommit, false), ("pay", AfterCommit, false)];
    unknown.points.extend(commit("decline"));
    vec![
        paid(
            "an authorization",
            |id| pay(id, CARD, "manual"),
            (201, 200),
            ("authorized", &["hold"]),
            (-1000, 1000),
        ),
        paid(
            "a charge",
            |id| pay(id, CARD, "automatic"),
            (201, 200),
            ("captured", &["charge"]),
            (-1000, 0),
        ),
        paid(
            "a one-shot payment",
            |_id| {
                (
                    Method::POST,
                    "/payments".to_owned(),
                    json!({"card_number": CARD, "amount": 10}),
                )
            },
            (201, 201),
            ("captured", &["charge"]),
            (-1000, 0),
        ),
        paid(
            "a payment of more than there is",
            |id| pay(id, EMPTY, "manual"),
            (402, 402),
            ("declined", &[]),
            (0, 0),
        ),
        unknown,
    ]
}

fn later_steps() -> Vec<Subject> {
    let cancel: fn(&str) -> Write = |id| (Method::POST, format!("/v1/payments/{id}/cancel"), json!({}));
    vec![
        Subject {
            name: "a capture",
            before: Some("manual"),
            request: |id| {
                let target = format!("/v1/payments/{id}/capture");
                (Method::POST, target, json!({"amount": 6}))
            },
            points: both("capture"),
            answers: (200, 200),
            left: ("captured", &["hold", "capture"]),
            moved: (-600, 0),
        },
        Subject {
            name: "a cancel",
            before: Some("manual"),
            request: cancel,
            points: both("cancel"),
            answers: (200, 200),
            left: ("canceled", &["hold", "release"]),
            moved: (0, 0),
        },
        Subject {
            name: "a cancel before the payment",
            before: None,
            request: cancel,
            points: both("cancel"),
            answers: (200, 200),
            left: ("canceled", &[]),
            moved: (0, 0),
        },
        Subject {
            name: "a refund",
            before: Some("automatic"),
            request: |id| {
                let target = format!("/v1/payments/{id}/refunds/r");
                (Method::PUT, target, json!({"amount": 6}))
            },
            points: both("refund"),
            answers: (201, 200),
            left: ("captured", &["charge", "refund"]),
            moved: (-400, 0),
        },
    ]
}

/// Says what is wrong with a payment as it is shown, if anything is.
pub(crate) fn fault(subject: &Subject, shown: &Value) -> Option<String> {
    let (status, kinds) = subject.left;
    let transfers = shown["transfers"].as_array();
    let found: Vec<&str> = transfers
        .into_iter()
        .flatten()
        .filter_map(|transfer| transfer["kind"].as_str())
        .collect();
    let is_right = shown["status"] == status && found == kinds;
    (!is_right).then(|| format!("{} should be {status} by {kinds:?}: {shown}", subject.name))
}
