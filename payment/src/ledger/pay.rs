//! Authorizing and charging: one transaction, and a second one only to record why a card was declined.
//! Invariant: a payment id is decided once. The transaction holds only while its record is absent; whoever comes
//! later reads the record and answers from it.

use kvstore_client::Txn;
use kvstore_client::wire::txn::{Branch, Comparison, Condition, Op, TxnAnswer};
use payment_client::Money;
use payment_client::wire::{Capture, CardStatus, DeclineCode, Status, TransferKind};
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::keys::{CardPart, Side};
use super::once::{Kept, Once};
use super::records::{self, CardRecord, OrderRecord, PaymentRecord, TransferRecord};
use super::{Ledger, Reply, answers, inconsistent, keys};
use crate::domain::{MerchantName, OrderRef, PaymentId};
use crate::vault::{CardRef, OpenedToken};

/// Who chose the id of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Caller,
    /// It is made of an idempotency key, so a repetition is one of that key.
    Key,
    /// It is drawn, and told only with a payment that is made: nobody could ever ask for a decline.
    Chance,
}

/// A payment that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Purchase {
    pub(crate) id: PaymentId,
    pub(crate) named: Named,
    pub(crate) card: CardRef,
    pub(crate) token: Option<OpenedToken>,
    pub(crate) money: Money,
    pub(crate) merchant: MerchantName,
    pub(crate) order_ref: Option<OrderRef>,
    pub(crate) capture: Capture,
    /// Of everything above but the id and the token.
    pub(crate) fingerprint: String,
}

impl Purchase {
    fn record(&self, now_ms: u64, hold_ms: u64) -> PaymentRecord {
        let (status, captured, expires_ms) = match self.capture {
            Capture::Manual => (Status::Authorized, 0, Some(now_ms + hold_ms)),
            Capture::Automatic => (Status::Captured, self.money.minor, None),
        };
        PaymentRecord {
            status,
            created_ms: now_ms,
            captured,
            decline: None,
            order: Some(OrderRecord {
                fingerprint: self.fingerprint.clone(),
                card: self.card.id.to_string(),
                brand: self.card.brand.clone(),
                last4: self.card.last4.clone(),
                merchant: self.merchant.to_string(),
                order_ref: self.order_ref.as_ref().map(ToString::to_string),
                amount: self.money.minor,
                currency: self.money.currency,
                capture: self.capture,
                expires_ms,
            }),
        }
    }

    fn declined(&self, code: DeclineCode, now_ms: u64) -> PaymentRecord {
        let mut record = PaymentRecord {
            status: Status::Declined,
            captured: 0,
            decline: Some(code),
            ..self.record(now_ms, 0)
        };
        if let Some(order) = &mut record.order {
            order.expires_ms = None;
        }
        record
    }

    /// What remembers a decline, if anybody can ask for it.
    fn put_decline(&self, code: DeclineCode, now_ms: u64) -> Vec<Op> {
        match self.named {
            Named::Caller | Named::Key => self.put_record(&self.declined(code, now_ms)).into(),
            Named::Chance => Vec::new(),
        }
    }

    fn put_record(&self, record: &PaymentRecord) -> [Op; 2] {
        let entry = keys::order_entry(&self.merchant, self.order_ref.as_ref(), &self.id);
        [
            Op::put(&keys::record(&self.id), records::write(record)),
            Op::put(&entry, ""),
        ]
    }

    fn transfer(&self, now_ms: u64) -> TransferRecord {
        let (kind, credit) = match self.capture {
            Capture::Manual => (TransferKind::Hold, None),
            Capture::Automatic => {
                let account = keys::merchant_account(&self.merchant, &self.id);
                (TransferKind::Charge, Some(account))
            }
        };
        TransferRecord {
            kind,
            debit: keys::card_account(&self.card.id),
            credit,
            amount: self.money.minor,
            currency: self.money.currency,
            created_ms: now_ms,
        }
    }

    /// What moves: the guard first, since its refusal is the card's.
    fn moves(&self, record: &PaymentRecord, now_ms: u64) -> Vec<Op> {
        let amount = self.money.minor;
        let part = |part| keys::card_part(&self.card.id, part);
        let mut ops = vec![Op::add(&part(CardPart::Available), -amount, Some(0), None)];
        let step = match self.capture {
            Capture::Manual => {
                ops.push(Op::add(&part(CardPart::Holds), amount, None, None));
                "hold"
            }
            Capture::Automatic => {
                let credits =
                    keys::merchant_side(self.money.currency, &self.merchant, &self.id, Side::Credits);
                ops.push(Op::add(&part(CardPart::Debits), amount, None, None));
                ops.push(Op::add(&credits, amount, None, None));
                "charge"
            }
        };
        let transfer = records::write(&self.transfer(now_ms));
        ops.push(Op::put(&keys::transfer(&self.id, step), transfer));
        ops.extend(self.put_record(record));
        let expires_ms = record.order.as_ref().and_then(|order| order.expires_ms);
        if let Some(expires_ms) = expires_ms {
            ops.push(Op::put(&keys::due_hold(expires_ms, &self.id), ""));
        }
        if let Some(token) = &self.token {
            let mark = keys::due_token(token.expires_ms, &token.nonce);
            ops.push(Op::put(&mark, self.id.as_str().to_owned()));
        }
        ops
    }

    fn body(&self, record: &PaymentRecord) -> String {
        answers::json(&answers::made(&self.id, record))
    }
}

impl Ledger {
    pub(crate) async fn pay(&self, purchase: &Purchase, once: Option<&Once>) -> Result<Reply> {
        if let Some(reply) = self.pay_as_named(purchase, once).await? {
            return Ok(reply);
        }
        // The key may be used anew, but the id that was made of it is another payment's for ever.
        let anew = Purchase {
            id: random_id(),
            named: Named::Chance,
            ..purchase.clone()
        };
        let reply = self.pay_as_named(&anew, once).await?;
        reply.ok_or_else(|| inconsistent("an id that was drawn is known already"))
    }

    /// `None` when the id was made of a key that has run out since.
    async fn pay_as_named(&self, purchase: &Purchase, once: Option<&Once>) -> Result<Option<Reply>> {
        let now_ms = now_ms();
        let token = purchase.token.as_ref();
        if token.is_some_and(|token| token.expires_ms <= now_ms) {
            let declined = self.decline(purchase, DeclineCode::TokenExpired, once, now_ms);
            return declined.await.map(Some);
        }
        let record = purchase.record(now_ms, self.hold_ms);
        let body = purchase.body(&record);
        let answer = self
            .commit("pay", self.payment_txn(purchase, &record, &body, once, now_ms))
            .await?;
        match answer.branch {
            Branch::Then => Ok(Some(Reply::first(201, body))),
            Branch::Failed => Err(answers::declined(DeclineCode::InsufficientFunds, false)),
            Branch::Else => self.look_back(purchase, once, &answer, now_ms).await,
        }
    }

    fn payment_txn(
        &self,
        purchase: &Purchase,
        record: &PaymentRecord,
        body: &str,
        once: Option<&Once>,
        now_ms: u64,
    ) -> Txn {
        let currency = purchase.money.currency.code();
        let accepts = keys::card_part(&purchase.card.id, CardPart::Accepts);
        let record_key = keys::record(&purchase.id);
        let mut txn = Txn::new()
            .when(Condition::absent(&record_key))
            .when(Condition::value(&accepts, Comparison::Equal, currency))
            .otherwise(Op::get(&record_key))
            .otherwise(Op::get(&keys::card_part(&purchase.card.id, CardPart::Record)));
        for mark in purchase.token.iter().flat_map(marks) {
            txn = txn.when(Condition::absent(&mark)).otherwise(Op::get(&mark));
        }
        txn = purchase.moves(record, now_ms).into_iter().fold(txn, Txn::then);
        txn = self.keep(txn, once, &Kept::Body(201, body), now_ms);
        // Too little on the card: recorded in the same transaction, so that it stays so for this id.
        let poor = DeclineCode::InsufficientFunds;
        txn = purchase
            .put_decline(poor, now_ms)
            .into_iter()
            .fold(txn, Txn::failed);
        // Also where it is not recorded: without that branch a refused add would run `else`.
        txn.0.failed.get_or_insert_default();
        let kept = Kept::Declined(poor);
        txn = self.keep_failed(txn, once, &kept, now_ms);
        Self::guard(txn, once)
    }

    /// Some condition did not hold: the id is known already, or the card cannot pay.
    async fn look_back(
        &self,
        purchase: &Purchase,
        once: Option<&Once>,
        answer: &TxnAnswer,
        now_ms: u64,
    ) -> Result<Option<Reply>> {
        let answer_op = if purchase.token.is_some() { 4 } else { 2 };
        if let Some(reply) = Self::replay_of(once, answer.got(answer_op))? {
            return Ok(Some(reply));
        }
        if let Some(kv) = answer.got(0) {
            let known: PaymentRecord = records::read(&kv.key, &kv.bytes())?;
            // Without an answer beside it, it is as old as answers get, or the program before did not keep one.
            let key_ends_ms = known.created_ms.saturating_add(self.answer_ms);
            if purchase.named == Named::Key && key_ends_ms <= now_ms {
                return Ok(None);
            }
            return self.tell_known(purchase, &known, once).await.map(Some);
        }
        let code = if (2..answer_op).any(|mark| answer.got(mark).is_some()) {
            DeclineCode::TokenUsed
        } else if let Some(kv) = answer.got(1) {
            let card: CardRecord = records::read(&kv.key, &kv.bytes())?;
            if card.status == CardStatus::Blocked {
                DeclineCode::Blocked
            } else if card.currency != purchase.money.currency {
                DeclineCode::CurrencyMismatch
            } else {
                return Err(inconsistent(
                    "a card that is active does not accept its own currency",
                ));
            }
        } else {
            DeclineCode::UnknownCard
        };
        self.decline(purchase, code, once, now_ms).await.map(Some)
    }

    /// A decline is final for its id, so it is recorded before it is told, unless nobody will ever know the id.
    async fn decline(
        &self,
        purchase: &Purchase,
        code: DeclineCode,
        once: Option<&Once>,
        now_ms: u64,
    ) -> Result<Reply> {
        let recorded = purchase.put_decline(code, now_ms);
        if recorded.is_empty() && once.is_none() {
            return Err(answers::declined(code, false));
        }
        let record_key = keys::record(&purchase.id);
        let mut txn = Txn::new()
            .when(Condition::absent(&record_key))
            .otherwise(Op::get(&record_key));
        txn = recorded.into_iter().fold(txn, Txn::then);
        txn = self.keep(txn, once, &Kept::Declined(code), now_ms);
        let answer = self.commit("decline", Self::guard(txn, once)).await?;
        if answer.branch == Branch::Then {
            return Err(answers::declined(code, false));
        }
        if let Some(reply) = Self::replay_of(once, answer.got(1))? {
            return Ok(reply);
        }
        let kv = answer
            .got(0)
            .ok_or_else(|| inconsistent("a record is neither absent nor there"))?;
        let known = records::read(&kv.key, &kv.bytes())?;
        self.tell_known(purchase, &known, once).await
    }

    /// The answer to a request whose id is known already.
    async fn tell_known(
        &self,
        purchase: &Purchase,
        record: &PaymentRecord,
        once: Option<&Once>,
    ) -> Result<Reply> {
        must_be_same(purchase, record)?;
        if let Some(code) = record.decline {
            return self.tell_again(once, &Kept::Declined(code)).await;
        }
        let status = match purchase.named {
            Named::Caller => 200,
            Named::Key | Named::Chance => 201,
        };
        let body = purchase.body(record);
        self.tell_again(once, &Kept::Body(status, &body)).await
    }
}

/// For a payment that its caller does not name.
pub(crate) fn random_id() -> PaymentId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    let id = format!("pay_{:032x}", u128::from_ne_bytes(bytes));
    PaymentId::parse(&id).expect("hex digits behind a word are a name")
}

/// Each of them says that the token was used.
fn marks(token: &OpenedToken) -> [String; 2] {
    [keys::due_token, keys::due_token_at_end].map(|mark| mark(token.expires_ms, &token.nonce))
}

/// An id that is known is this payment's only if that was asked for with the same content.
fn must_be_same(purchase: &Purchase, record: &PaymentRecord) -> Result<()> {
    let Some(known) = &record.order else {
        return Err(Problem::new(
            problem::PAYMENT_CANCELED,
            "This payment was canceled before it arrived.",
        ));
    };
    if known.fingerprint == purchase.fingerprint {
        return Ok(());
    }
    Err(match purchase.named {
        Named::Caller => Problem::new(
            problem::PAYMENT_ID_REUSED,
            "This id belongs to a payment with other content.",
        ),
        Named::Key | Named::Chance => Problem::new(
            problem::IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used for another request.",
        ),
    })
}
