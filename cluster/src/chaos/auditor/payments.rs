//! A payment as the service keeps it: where each state may lead, what of it never changes, and which transfers belong
//! to each state. Pure: it knows neither clock nor store.

use serde::Deserialize;
use serde_json::Value;

use super::content::{GONE, UNREADABLE, changed, told, way};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Authorized,
    Captured,
    Canceled,
    Expired,
    Declined,
}

use Status::{Authorized, Canceled, Captured, Declined, Expired};

/// Which states may follow, as the contract says; `None` is before the payment was seen.
fn next(was: Option<Status>) -> &'static [Status] {
    match was {
        None => &[Authorized, Captured, Canceled, Declined],
        Some(Authorized) => &[Captured, Canceled, Expired],
        Some(Captured | Canceled | Expired | Declined) => &[],
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Payment {
    pub(super) status: Status,
    #[serde(default)]
    pub(super) captured: i64,
    decline: Option<Value>,
    /// Not there where it was canceled before it was seen.
    pub(super) order: Option<Ordered>,
}

/// What was asked for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ordered {
    pub(super) card: String,
    pub(super) order_ref: Option<String>,
    pub(super) amount: i64,
    pub(super) currency: String,
    capture: Capture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Capture {
    Manual,
    Automatic,
}

impl Payment {
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What is wrong with it, whatever it was before.
    fn faults(&self) -> Vec<String> {
        let (status, amount) = (self.status, self.order.as_ref().map_or(0, |order| order.amount));
        let bounds = if status == Captured { 1..=amount } else { 0..=0 };
        let faults = [
            (!bounds.contains(&self.captured))
                .then(|| format!("is {status:?} with {} captured", self.captured)),
            (self.decline.is_some() != (status == Declined))
                .then(|| format!("is {status:?} with the decline of another state")),
            (self.order.is_none() && status != Canceled)
                .then(|| format!("is {status:?}, and nobody asked for it")),
            (self.order.is_some() && amount <= 0).then(|| format!("is about {amount}")),
        ];
        faults.into_iter().flatten().collect()
    }

    /// What is wrong with it as the first that is known of the payment.
    fn wrong_begin(&self) -> Option<String> {
        let is_right = match (self.status, &self.order) {
            (Authorized, Some(order)) => order.capture == Capture::Manual,
            (Captured, Some(order)) => order.capture == Capture::Automatic && self.captured == order.amount,
            (Canceled, order) => order.is_none(),
            // The others are no begin, or begin any payment.
            _ => true,
        };
        (!is_right).then(|| {
            format!(
                "began as {:?}, which does not begin a payment like this",
                self.status
            )
        })
    }
}

/// What is wrong when the record of a payment that was `before` is `after`.
pub(super) fn judge(before: Option<&str>, after: Option<&str>) -> Vec<String> {
    let Some(after) = after else {
        return vec![GONE.to_owned()];
    };
    let Some(now) = Payment::read(after) else {
        return vec![UNREADABLE.to_owned()];
    };
    let was = before.and_then(Payment::read).map(|was| was.status);
    let mut faults: Vec<String> = way(was, next(was), now.status).into_iter().collect();
    faults.extend(now.faults());
    match before {
        Some(before) => faults.extend(told(&changed(before, after, &["status", "captured"]))),
        None => faults.extend(now.wrong_begin()),
    }
    faults
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Hold,
    Charge,
    Capture,
    Release,
    Refund,
    Fund,
    Withdraw,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Transfer {
    pub(super) kind: Kind,
    pub(super) debit: String,
    pub(super) credit: Option<String>,
    pub(super) amount: i64,
    pub(super) currency: String,
}

impl Transfer {
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// A transfer is written once.
pub(super) fn judge_transfer(before: Option<&str>, after: Option<&str>) -> Option<String> {
    let Some(after) = after else {
        return Some(GONE.to_owned());
    };
    if before.is_some() {
        return Some("was written again, and a transfer never is".to_owned());
    }
    match Transfer::read(after) {
        Some(transfer) if transfer.amount > 0 => None,
        Some(transfer) => Some(format!("moves {}", transfer.amount)),
        None => Some(UNREADABLE.to_owned()),
    }
}

/// What is wrong between a payment and its transfers, which are all `parts` of it but one.
pub(super) fn judge_transfers<'row>(
    payment: &Payment,
    parts: impl Iterator<Item = (&'row str, &'row str)>,
) -> Option<String> {
    let (mut kinds, mut refunds, mut refunded) = (Vec::new(), 0_i128, 0_i128);
    let amount = payment.order.as_ref().map_or(0, |order| order.amount);
    let card = payment.order.as_ref().map(|order| format!("card:{}", order.card));
    for (part, value) in parts {
        if part == "refunded" {
            refunded = value.parse().unwrap_or(-1);
            continue;
        }
        let transfer = Transfer::read(value)?;
        let (name, moves) = match transfer.kind {
            Kind::Hold => ("hold", amount),
            Kind::Release => ("release", amount),
            Kind::Charge => ("charge", payment.captured),
            Kind::Capture => ("capture", payment.captured),
            _ => ("refund", transfer.amount),
        };
        let of_card = if name == "refund" {
            transfer.credit
        } else {
            Some(transfer.debit)
        };
        if part.split('/').next() != Some(name) || transfer.amount != moves || of_card != card {
            return Some(format!("has a {part} that is none, or of another amount or card"));
        }
        if name == "refund" {
            refunds += i128::from(transfer.amount);
        } else {
            kinds.push(transfer.kind);
        }
    }
    let wanted: &[&[Kind]] = match (payment.status, &payment.order) {
        (Authorized, _) => &[&[Kind::Hold]],
        // In the order of their names.
        (Captured, _) => &[&[Kind::Capture, Kind::Hold], &[Kind::Charge]],
        (Canceled | Expired, Some(_)) => &[&[Kind::Hold, Kind::Release]],
        (Declined, _) | (_, None) => &[&[]],
    };
    if !wanted.contains(&&*kinds) {
        return Some(format!("is {:?} with the transfers {kinds:?}", payment.status));
    }
    (refunds != refunded || refunded > i128::from(payment.captured)).then(|| {
        format!(
            "counts {refunded} as given back, its refunds are {refunds}, and {} was captured",
            payment.captured
        )
    })
}
