//! An order as its shop keeps it: where each state may lead, and what of it never changes.
//! The shop of a chaos run carries orders on by itself, not by letters, which would have more to tell.
//! Pure: it knows neither clock nor store.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::content::{GONE, UNREADABLE, changed, told, way};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Pending,
    Authorized,
    Paid,
    PaymentFailed,
    Canceling,
    Canceled,
    Refunding,
    Refunded,
    /// Without a card, where everybody is trusted.
    Confirmed,
}

use Status::{Authorized, Canceled, Canceling, Confirmed, Paid, PaymentFailed, Pending, Refunded, Refunding};

/// Which states may follow, as the contract says; `None` is before there is the order.
fn next(was: Option<Status>) -> &'static [Status] {
    match was {
        None => &[Pending, Confirmed],
        Some(Pending) => &[Authorized, PaymentFailed, Canceling],
        // It is canceled only where its hold has expired.
        Some(Authorized) => &[Paid, Canceling],
        Some(Paid) => &[Refunding],
        Some(Canceling) => &[Canceled],
        Some(Refunding) => &[Refunded],
        Some(PaymentFailed | Canceled | Refunded | Confirmed) => &[],
    }
}

impl Status {
    /// Whether somebody has still to do something, and so a `todo` stands for it.
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Pending | Authorized | Canceling | Refunding)
    }

    /// Whether its goods are off the shelves, reserved or sold.
    fn has_goods(self) -> bool {
        !matches!(self, PaymentFailed | Canceled | Refunded)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Order {
    pub(super) status: Status,
    pub(super) total_minor: i64,
    pub(super) currency: String,
    pub(super) payment: Option<PaymentOf>,
    lines: Vec<Line>,
    decline: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PaymentOf {
    pub(super) id: String,
    token: Option<String>,
    brand: Option<String>,
    last4: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Line {
    product: String,
    unit_minor: i64,
    quantity: i64,
}

/// What may change, each in a way of its own.
const CHANGES: [&str; 4] = ["status", "changed_ms", "payment", "decline"];

impl Order {
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// How many pieces of each product are off the shelves for it.
    pub(super) fn pieces(&self) -> BTreeMap<&str, i64> {
        let mut pieces = BTreeMap::new();
        for line in self.lines.iter().filter(|_| self.status.has_goods()) {
            *pieces.entry(line.product.as_str()).or_default() += line.quantity;
        }
        pieces
    }

    /// What is wrong with it, whatever it was before.
    fn faults(&self) -> Vec<String> {
        let sum = self.lines.iter();
        let sum: i128 = sum
            .map(|line| i128::from(line.unit_minor) * i128::from(line.quantity))
            .sum();
        let is_empty = self.lines.is_empty() || self.lines.iter().any(|line| line.quantity <= 0);
        let has_token = self
            .payment
            .as_ref()
            .is_some_and(|payment| payment.token.is_some());
        let status = self.status;
        let faults = [
            (sum != i128::from(self.total_minor))
                .then(|| "has a total that its lines do not make".to_owned()),
            is_empty.then(|| "has a line of nothing, or none".to_owned()),
            (self.payment.is_none() != (status == Confirmed))
                .then(|| format!("is {status:?} with the payment of another state")),
            (self.decline.is_some() != (status == PaymentFailed))
                .then(|| format!("is {status:?} with the decline of another state")),
            (has_token && !matches!(status, Pending | Canceling))
                .then(|| format!("has the token of its card still as {status:?}")),
        ];
        faults.into_iter().flatten().collect()
    }
}

/// Of the card, only what people know it by may be learned later.
fn payment_changed(before: &PaymentOf, after: &PaymentOf) -> Vec<String> {
    let kept = |before: &Option<String>, after: &Option<String>| before.is_none() || before == after;
    let parts = [
        ("payment.id", before.id == after.id),
        ("payment.brand", kept(&before.brand, &after.brand)),
        ("payment.last4", kept(&before.last4, &after.last4)),
        (
            "payment.token",
            after.token.is_none() || after.token == before.token,
        ),
    ];
    let changed = parts.into_iter().filter(|(_, is_kept)| !is_kept);
    changed.map(|(field, _)| field.to_owned()).collect()
}

/// What is wrong when an order that was `before` is `after`.
pub(super) fn judge(before: Option<&str>, after: Option<&str>) -> Vec<String> {
    let Some(after) = after else {
        return vec![GONE.to_owned()];
    };
    let Some(now) = Order::read(after) else {
        return vec![UNREADABLE.to_owned()];
    };
    let was = before.and_then(Order::read);
    let status = was.as_ref().map(|was| was.status);
    let mut faults: Vec<String> = way(status, next(status), now.status).into_iter().collect();
    faults.extend(now.faults());
    if let (Some(before), Some(was)) = (before, was) {
        let mut fields = changed(before, after, &CHANGES);
        match (&was.payment, &now.payment) {
            (Some(was), Some(now)) => fields.extend(payment_changed(was, now)),
            (None, None) => {}
            _ => fields.push("payment".to_owned()),
        }
        faults.extend(told(&fields));
    }
    faults
}
