//! How a hold ends: captured, canceled or expired, and only once.
//! Invariant: the state of a payment only moves forward. Each move is conditional on the record that was read; when
//! another was faster, its record decides anew, and since no state comes back that ends after a few rounds.

use kvstore_client::Txn;
use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use payment_client::Money;
use payment_client::wire::{Status, TransferKind};
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::keys::{CardPart, Side};
use super::once::{Kept, Once};
use super::records::{self, OrderRecord, PaymentRecord, TransferRecord};
use super::{Ledger, Reply, answers, inconsistent, keys};
use crate::domain::{MerchantName, PaymentId};
use crate::vault::CardId;

/// Absent, authorized, ended: no payment takes more steps than that.
const ROUNDS_MAX: usize = 4;

/// What is to become of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// With the amount as it was sent; without one, all that is held.
    Capture(Option<String>),
    Cancel,
    /// The hold has run out by this time.
    Expire {
        now_ms: u64,
    },
}

impl Wish {
    fn word(&self) -> &'static str {
        match self {
            Self::Capture(_) => "capture",
            Self::Cancel => "cancel",
            Self::Expire { .. } => "expire",
        }
    }
}

/// What follows for the record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// It is so already.
    Replay,
    /// The id is canceled before it was ever seen.
    Bury,
    Capture(i64),
    Release(Status),
}

fn decide(record: Option<&PaymentRecord>, wish: &Wish) -> Result<Step> {
    let Some(record) = record else {
        return match wish {
            Wish::Cancel => Ok(Step::Bury),
            _ => Err(unknown()),
        };
    };
    match (record.status, wish) {
        (Status::Authorized, Wish::Capture(amount)) => {
            let order = order_of(record)?;
            let amount = amount_of(amount.as_deref(), order)?.unwrap_or(order.amount);
            if amount > order.amount {
                return Err(Problem::new(
                    problem::CAPTURE_EXCEEDS_HOLD,
                    "The amount is more than is held.",
                ));
            }
            Ok(Step::Capture(amount))
        }
        (Status::Captured, Wish::Capture(amount)) => {
            let amount = amount_of(amount.as_deref(), order_of(record)?)?;
            if amount.is_some_and(|amount| amount != record.captured) {
                return Err(Problem::new(
                    problem::CAPTURE_AMOUNT_CHANGED,
                    "The payment was captured with another amount.",
                ));
            }
            Ok(Step::Replay)
        }
        (Status::Canceled, Wish::Capture(_)) => Err(Problem::new(
            problem::PAYMENT_CANCELED,
            "The payment was canceled.",
        )),
        (Status::Expired, Wish::Capture(_)) => {
            Err(Problem::new(problem::PAYMENT_EXPIRED, "The hold has expired."))
        }
        (Status::Declined, Wish::Capture(_)) => {
            Err(Problem::new(problem::PAYMENT_DECLINED, "The card was declined."))
        }
        (Status::Authorized, Wish::Cancel) => Ok(Step::Release(Status::Canceled)),
        (Status::Authorized, Wish::Expire { now_ms }) => {
            let expires_ms = order_of(record)?.expires_ms;
            if expires_ms.is_some_and(|expires_ms| expires_ms <= *now_ms) {
                Ok(Step::Release(Status::Expired))
            } else {
                Ok(Step::Replay)
            }
        }
        (Status::Captured, Wish::Cancel) => Err(Problem::new(
            problem::PAYMENT_CAPTURED,
            "The payment was captured already; refund it instead.",
        )),
        (Status::Captured | Status::Canceled | Status::Expired | Status::Declined, _) => Ok(Step::Replay),
    }
}

pub(super) fn unknown() -> Problem {
    Problem::new(
        problem::PAYMENT_NOT_FOUND,
        "No payment with this id was ever seen here.",
    )
}

pub(super) fn order_of(record: &PaymentRecord) -> Result<&OrderRecord> {
    let order = record.order.as_ref();
    order.ok_or_else(|| inconsistent("a payment that was made has no order"))
}

/// An amount in the payment's currency, which only the record tells.
pub(super) fn amount_of(literal: Option<&str>, order: &OrderRecord) -> Result<Option<i64>> {
    let Some(literal) = literal else { return Ok(None) };
    let invalid = |detail: String| {
        let whole = "The amount is not one that this payment can take.";
        Err(Problem::new(problem::INVALID_REQUEST, whole).fault("/amount", detail))
    };
    match Money::of_literal(literal, order.currency) {
        Ok(money) if money.minor == 0 => invalid("must be more than 0".to_owned()),
        Ok(money) => Ok(Some(money.minor)),
        Err(error) => invalid(error.to_string()),
    }
}

/// A record, and which revision of it was read.
struct Found {
    revision: Revision,
    record: PaymentRecord,
}

fn found(kv: Option<&KeyValue>) -> Result<Option<Found>> {
    kv.map(|kv| {
        Ok(Found {
            revision: kv.mod_revision,
            record: records::read(&kv.key, &kv.bytes())?,
        })
    })
    .transpose()
}

impl Ledger {
    pub(crate) async fn resolve(&self, id: &PaymentId, wish: &Wish, once: Option<&Once>) -> Result<Reply> {
        let now_ms = now_ms();
        let record_key = keys::record(id);
        let read = self.read(wish.word(), &record_key).await?;
        let mut present = found(read.as_ref())?;
        for _ in 0..ROUNDS_MAX {
            let decided = decide(present.as_ref().map(|found| &found.record), wish);
            let step = match (decided, &present) {
                (Ok(Step::Replay), Some(found)) => {
                    let told = answers::resolved(id, &found.record);
                    return self.tell_again(once, &Kept::Body(200, &told)).await;
                }
                (Err(refusal), _) => return self.answered_or(once, refusal).await,
                (Ok(step), _) => step,
            };
            let revision = present.as_ref().map_or(0, |found| found.revision);
            let (record, ops) = match (&step, &present) {
                (Step::Bury, _) => (tombstone(now_ms), Vec::new()),
                (_, Some(found)) => moves(id, &found.record, &step, now_ms)?,
                (_, None) => return Err(unknown()),
            };
            let body = answers::resolved(id, &record);
            let mut txn = Txn::new()
                .when(Condition::unchanged(&record_key, revision))
                .then(Op::put(&record_key, records::write(&record)))
                .otherwise(Op::get(&record_key));
            txn = ops.into_iter().fold(txn, Txn::then);
            txn = self.keep(txn, once, &Kept::Body(200, &body), now_ms);
            let answer = self.commit(wish.word(), Self::guard(txn, once)).await?;
            if answer.branch == Branch::Then {
                return Ok(Reply::first(200, body));
            }
            if answer.failed_op.is_some() {
                return Err(inconsistent("a hold is larger than all holds of its card"));
            }
            if let Some(reply) = Self::replay_of(once, answer.got(1))? {
                return Ok(reply);
            }
            present = found(answer.got(0))?;
        }
        Err(inconsistent("a payment went back to an earlier state"))
    }
}

fn tombstone(now_ms: u64) -> PaymentRecord {
    PaymentRecord {
        status: Status::Canceled,
        created_ms: now_ms,
        captured: 0,
        decline: None,
        order: None,
    }
}

/// What the end of a hold moves, and the record after it.
fn moves(
    id: &PaymentId,
    record: &PaymentRecord,
    step: &Step,
    now_ms: u64,
) -> Result<(PaymentRecord, Vec<Op>)> {
    let order = order_of(record)?;
    let card = CardId::stored(order.card.clone());
    let part = |part| keys::card_part(&card, part);
    let (status, captured) = match step {
        Step::Capture(amount) => (Status::Captured, *amount),
        Step::Release(status) => (*status, 0),
        Step::Replay | Step::Bury => (record.status, record.captured),
    };
    let mut ops = vec![Op::add(&part(CardPart::Holds), -order.amount, Some(0), None)];
    if order.amount > captured {
        ops.push(Op::add(
            &part(CardPart::Available),
            order.amount - captured,
            None,
            None,
        ));
    }
    let mut transfer = TransferRecord {
        kind: TransferKind::Release,
        debit: keys::card_account(&card),
        credit: None,
        amount: order.amount,
        currency: order.currency,
        created_ms: now_ms,
    };
    let mut name = "release";
    if captured > 0 {
        let merchant = merchant_of(order);
        let credits = keys::merchant_side(order.currency, &merchant, id, Side::Credits);
        ops.push(Op::add(&part(CardPart::Debits), captured, None, None));
        ops.push(Op::add(&credits, captured, None, None));
        transfer.kind = TransferKind::Capture;
        transfer.credit = Some(keys::merchant_account(&merchant, id));
        transfer.amount = captured;
        name = "capture";
    }
    ops.push(Op::put(&keys::transfer(id, name), records::write(&transfer)));
    if let Some(expires_ms) = order.expires_ms {
        ops.push(Op::delete(&keys::due_hold(expires_ms, id)));
    }
    let after = PaymentRecord {
        status,
        captured,
        ..record.clone()
    };
    Ok((after, ops))
}

pub(super) fn merchant_of(order: &OrderRecord) -> MerchantName {
    MerchantName::stored(order.merchant.as_str())
}

#[cfg(test)]
mod tests {
    use payment_client::Currency;
    use payment_client::wire::{Capture, DeclineCode};

    use super::*;

    fn record(status: Status, captured: i64) -> PaymentRecord {
        PaymentRecord {
            status,
            created_ms: 1,
            captured,
            decline: (status == Status::Declined).then_some(DeclineCode::Blocked),
            order: Some(OrderRecord {
                fingerprint: String::new(),
                card: "c1_1".to_owned(),
                brand: "visa".to_owned(),
                last4: "4242".to_owned(),
                merchant: "m".to_owned(),
                order_ref: None,
                amount: 1000,
                currency: Currency::EUR,
                capture: Capture::Manual,
                expires_ms: Some(100),
            }),
        }
    }

    fn capture(amount: &str) -> Wish {
        Wish::Capture(Some(amount.to_owned()))
    }

    /// What follows from each state for each wish.
    fn steps() -> String {
        let mut told = String::new();
        for status in [
            Some(Status::Authorized),
            Some(Status::Captured),
            Some(Status::Canceled),
            Some(Status::Expired),
            Some(Status::Declined),
            None,
        ] {
            let captured = if status == Some(Status::Captured) { 400 } else { 0 };
            let record = status.map(|status| record(status, captured));
            let wishes = [
                ("all", Wish::Capture(None)),
                ("4", capture("4")),
                ("10.00", capture("10.00")),
                ("10.01", capture("10.01")),
                ("0", capture("0")),
                ("1.005", capture("1.005")),
                ("cancel", Wish::Cancel),
                ("expire", Wish::Expire { now_ms: 100 }),
            ];
            let steps = wishes.map(|(name, wish)| match decide(record.as_ref(), &wish) {
                Ok(step) => format!("{name}: {step:?}"),
                Err(problem) => format!("{name}: {}", problem.kind.code),
            });
            let name = status.map_or("absent", Status::word);
            told = told + name + " · " + &steps.join(" · ") + "\n";
        }
        told
    }

    #[test]
    fn every_state_meets_every_wish() {
        insta::assert_snapshot!(steps(), @r#"
        authorized · all: Capture(1000) · 4: Capture(400) · 10.00: Capture(1000) · 10.01: capture-exceeds-hold · 0: invalid-request · 1.005: invalid-request · cancel: Release(Canceled) · expire: Release(Expired)
        captured · all: Replay · 4: Replay · 10.00: capture-amount-changed · 10.01: capture-amount-changed · 0: invalid-request · 1.005: invalid-request · cancel: payment-captured · expire: Replay
        canceled · all: payment-canceled · 4: payment-canceled · 10.00: payment-canceled · 10.01: payment-canceled · 0: payment-canceled · 1.005: payment-canceled · cancel: Replay · expire: Replay
        expired · all: payment-expired · 4: payment-expired · 10.00: payment-expired · 10.01: payment-expired · 0: payment-expired · 1.005: payment-expired · cancel: Replay · expire: Replay
        declined · all: payment-declined · 4: payment-declined · 10.00: payment-declined · 10.01: payment-declined · 0: payment-declined · 1.005: payment-declined · cancel: Replay · expire: Replay
        absent · all: payment-not-found · 4: payment-not-found · 10.00: payment-not-found · 10.01: payment-not-found · 0: payment-not-found · 1.005: payment-not-found · cancel: Bury · expire: payment-not-found
        "#);
    }

    #[test]
    fn a_hold_does_not_expire_early() {
        let held = record(Status::Authorized, 0);
        assert_eq!(
            decide(Some(&held), &Wish::Expire { now_ms: 99 }).unwrap(),
            Step::Replay
        );
        let expired = decide(Some(&held), &Wish::Expire { now_ms: 100 }).unwrap();
        assert_eq!(expired, Step::Release(Status::Expired));
    }
}
