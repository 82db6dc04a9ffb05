//! Giving back what was captured: one read, one transaction, and no compare on anything that refunds share.
//! Invariant: the sum of all refunds never passes what was captured, because it is a bounded counter of its own; a
//! refund that would pass it leaves no trace.

use kvstore_client::Txn;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use payment_client::wire::{Status, TransferKind};
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::keys::{CardPart, Side};
use super::once::{Kept, Once};
use super::records::{self, OrderRecord, PaymentRecord, TransferRecord};
use super::resolve::{amount_of, merchant_of, order_of, unknown};
use super::{Ledger, Reply, answers, inconsistent, keys};
use crate::domain::{PaymentId, RefundId};
use crate::vault::CardId;

impl Ledger {
    /// `amount` is as it was sent; only the payment's record tells its currency.
    pub(crate) async fn refund(
        &self,
        id: &PaymentId,
        refund: &RefundId,
        amount: &str,
        once: Option<&Once>,
    ) -> Result<Reply> {
        let read = self.read("refund", &keys::record(id)).await?;
        let Refundable {
            captured,
            order,
            amount,
        } = match refundable(read.as_ref(), amount) {
            Ok(refundable) => refundable,
            Err(refusal) => return self.answered_or(once, refusal).await,
        };
        let card = CardId::stored(order.card.clone());
        let merchant = merchant_of(&order);
        let now_ms = now_ms();
        let transfer = TransferRecord {
            kind: TransferKind::Refund,
            debit: keys::merchant_account(&merchant, id),
            credit: Some(keys::card_account(&card)),
            amount,
            currency: order.currency,
            created_ms: now_ms,
        };
        let body = answers::refund(id, refund, &transfer);
        let key = keys::refund(id, refund);
        let credits = keys::card_part(&card, CardPart::Credits);
        let available = keys::card_part(&card, CardPart::Available);
        let debits = keys::merchant_side(order.currency, &merchant, id, Side::Debits);
        let mut txn = Txn::new()
            .when(Condition::absent(&key))
            .then(Op::add(&keys::refunded(id), amount, None, Some(captured)))
            .then(Op::add(&credits, amount, None, None))
            .then(Op::add(&available, amount, None, None))
            .then(Op::add(&debits, amount, None, None))
            .then(Op::put(&key, records::write(&transfer)))
            .otherwise(Op::get(&key));
        // An empty branch: without it a refused add would run `else`.
        txn.0.failed.get_or_insert_default();
        txn = self.keep(txn, once, &Kept::Body(201, &body), now_ms);
        let answer = self.commit("refund", Self::guard(txn, once)).await?;
        match answer.branch {
            Branch::Then => Ok(Reply::first(201, body)),
            Branch::Failed => Err(Problem::new(
                problem::REFUND_EXCEEDS_CAPTURE,
                "All refunds together would be more than was captured.",
            )),
            Branch::Else => {
                if let Some(reply) = Self::replay_of(once, answer.got(1))? {
                    return Ok(reply);
                }
                let kv = answer
                    .got(0)
                    .ok_or_else(|| inconsistent("a refund is neither absent nor there"))?;
                let known: TransferRecord = records::read(&kv.key, &kv.bytes())?;
                if known.amount != amount {
                    return Err(Problem::new(
                        problem::REFUND_ID_REUSED,
                        "This payment has a refund with this id and another amount.",
                    ));
                }
                let told = answers::refund(id, refund, &known);
                self.tell_again(once, &Kept::Body(200, &told)).await
            }
        }
    }
}

/// A payment of which something can be given back, and how much is wanted.
struct Refundable {
    captured: i64,
    order: OrderRecord,
    amount: i64,
}

fn refundable(read: Option<&KeyValue>, amount: &str) -> Result<Refundable> {
    let read = read.ok_or_else(unknown)?;
    let payment: PaymentRecord = records::read(&read.key, &read.bytes())?;
    check_state(&payment)?;
    let order = order_of(&payment)?;
    let amount = amount_of(Some(amount), order)?.unwrap_or_default();
    Ok(Refundable {
        captured: payment.captured,
        order: order.clone(),
        amount,
    })
}

fn check_state(payment: &PaymentRecord) -> Result<()> {
    let (kind, detail) = match payment.status {
        Status::Captured => return Ok(()),
        Status::Authorized => (problem::PAYMENT_NOT_CAPTURED, "The payment is only held."),
        Status::Canceled => (problem::PAYMENT_CANCELED, "The payment was canceled."),
        Status::Expired => (problem::PAYMENT_EXPIRED, "The hold has expired."),
        Status::Declined => (problem::PAYMENT_DECLINED, "The card was declined."),
    };
    Err(Problem::new(kind, detail))
}
