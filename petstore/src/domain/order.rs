//! How orders go on: the states, what is to be done in each, and what follows from how that went.
//! Invariant: states only move forward; from `authorized`, the pivot, nothing leads back but a hold that expired.
//! Stock is returned exactly where an order ends without a sale. Pure: no clock, no IO.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Pending,
    Authorized,
    Paid,
    PaymentFailed,
    Canceling,
    Canceled,
    Refunding,
    Refunded,
    /// Without a card, where everybody is trusted: the goods are taken and nothing is charged.
    Confirmed,
}

impl Status {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::Pending,
        Self::Authorized,
        Self::Paid,
        Self::PaymentFailed,
        Self::Canceling,
        Self::Canceled,
        Self::Refunding,
        Self::Refunded,
        Self::Confirmed,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Authorized => "authorized",
            Self::Paid => "paid",
            Self::PaymentFailed => "payment_failed",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
            Self::Confirmed => "confirmed",
        }
    }

    /// Whether nothing is left to be done, so that no `todo` stands for it.
    pub(crate) fn is_ended(self) -> bool {
        !matches!(
            self,
            Self::Pending | Self::Authorized | Self::Canceling | Self::Refunding
        )
    }

    /// Whether the goods are taken off the shelf and not sold yet.
    pub(crate) fn reserves(self) -> bool {
        matches!(self, Self::Pending | Self::Authorized | Self::Canceling)
    }

    pub(crate) fn sells(self) -> bool {
        matches!(self, Self::Paid | Self::Refunding | Self::Confirmed)
    }
}

/// How many of what, at which price when it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) product: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) species: String,
    pub(crate) unit_minor: i64,
    pub(crate) quantity: i64,
}

pub(crate) type Lines = Vec<Line>;

/// What is to be done next for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Nothing,
    Authorize,
    Capture,
    /// It took too long: give it up.
    GiveUp,
    CancelPayment,
    Refund,
}

pub(crate) fn next_step(status: Status, age_ms: u64, pending_ms_max: u64) -> Step {
    match status {
        Status::Pending if age_ms >= pending_ms_max => Step::GiveUp,
        Status::Pending => Step::Authorize,
        Status::Authorized => Step::Capture,
        Status::Canceling => Step::CancelPayment,
        Status::Refunding => Step::Refund,
        _ => Step::Nothing,
    }
}

/// How the payment service answered to a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Paid {
    Done,
    /// With why, in a word.
    Declined(String),
    /// It is canceled, or its hold has expired: no money will come of it.
    Void,
    /// The money was taken although nobody should have been able to.
    Captured,
    /// Nothing is known; the same call tells later.
    Unknown,
    /// What no sound payment service answers.
    Odd,
}

/// What becomes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Becomes(Status),
    Fails(String),
    /// The same step once more, a little later.
    Again,
}

pub(crate) fn after(step: Step, paid: &Paid) -> Turn {
    match (step, paid) {
        (Step::GiveUp, Paid::Done) | (Step::Authorize | Step::Capture, Paid::Void) => {
            Turn::Becomes(Status::Canceling)
        }
        (Step::Authorize, Paid::Done) => Turn::Becomes(Status::Authorized),
        (Step::Authorize, Paid::Declined(code)) => Turn::Fails(code.clone()),
        (Step::Capture, Paid::Done | Paid::Captured) => Turn::Becomes(Status::Paid),
        (Step::CancelPayment, Paid::Done | Paid::Void | Paid::Declined(_)) => Turn::Becomes(Status::Canceled),
        // Taken in spite of everything: it is given back, and the goods with it.
        (Step::CancelPayment, Paid::Captured) => Turn::Becomes(Status::Refunding),
        (Step::Refund, Paid::Done) => Turn::Becomes(Status::Refunded),
        // Nothing is known yet; or it is odd, or what the contract rules out, which is no reason to guess: a person finds it
        // in the log, and it is asked again.
        _ => Turn::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each state can lead, whatever the payment service answers.
    fn ways() -> String {
        let answers = [
            Paid::Done,
            Paid::Declined("x".to_owned()),
            Paid::Void,
            Paid::Captured,
            Paid::Unknown,
        ];
        let mut told = String::new();
        for status in Status::ALL {
            for age_ms in [0, 900] {
                let step = next_step(status, age_ms, 900);
                let turns = answers.iter().map(|paid| match after(step, paid) {
                    Turn::Becomes(next) => next.word().to_owned(),
                    Turn::Fails(_) => "payment_failed".to_owned(),
                    Turn::Again => "again".to_owned(),
                });
                let turns: Vec<String> = turns.collect();
                if age_ms == 0 || status == Status::Pending {
                    let turns = turns.join(" · ");
                    told = told + status.word() + &format!(" {age_ms} {step:?}: {turns}\n");
                }
            }
        }
        told
    }

    #[test]
    fn every_state_meets_every_answer() {
        insta::assert_snapshot!(ways(), @r"
        pending 0 Authorize: authorized · payment_failed · canceling · again · again
        pending 900 GiveUp: canceling · again · again · again · again
        authorized 0 Capture: paid · again · canceling · paid · again
        paid 0 Nothing: again · again · again · again · again
        payment_failed 0 Nothing: again · again · again · again · again
        canceling 0 CancelPayment: canceled · canceled · canceled · refunding · again
        canceled 0 Nothing: again · again · again · again · again
        refunding 0 Refund: refunded · again · again · again · again
        refunded 0 Nothing: again · again · again · again · again
        confirmed 0 Nothing: again · again · again · again · again
        ");
    }

    #[test]
    fn goods_are_on_the_shelf_reserved_or_sold() {
        for status in Status::ALL {
            assert!(!(status.reserves() && status.sells()), "{status:?}");
            // Where the goods come back, the order has ended.
            assert!(
                status.reserves() || status.sells() || status.is_ended(),
                "{status:?}"
            );
        }
    }
}
