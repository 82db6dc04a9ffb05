//! Cards: opening them, bringing them to a balance, blocking them, and asking for the balance.
//! Invariant: money comes to a card and leaves it to the outside one transfer at a time, because each is conditional
//! on the card's record; payments never write that record, so they neither wait nor make others wait.

use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{RangeRequest, Txn};
use payment_client::Money;
use payment_client::wire::{Balance, Card, CardOpened, CardStatus, TransferKind};
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::keys::{CardPart, Side};
use super::once::{Kept, Once};
use super::records::{self, CardRecord, TransferRecord};
use super::{Ledger, Reply, answers, keys, trouble};
use crate::vault::{CardId, CardRef};

/// Only other operators at the same card can be in the way.
const ROUNDS_MAX: usize = 16;

/// A card as it is wished for.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) card: CardRef,
    /// What is to be available on it.
    pub(crate) balance: Money,
    /// Without one, a known card stays as it is.
    pub(crate) status: Option<CardStatus>,
}

/// A card and its counters, as one range read found them.
#[derive(Clone, Debug)]
pub(crate) struct CardState {
    pub(crate) record: CardRecord,
    pub(crate) revision: Revision,
    pub(crate) available: i64,
    pub(crate) credits: i64,
    pub(crate) debits: i64,
    pub(crate) holds: i64,
}

impl CardState {
    /// `None` without a record.
    pub(crate) fn of(prefix: &str, kvs: &[KeyValue]) -> Result<Option<Self>> {
        let part = |part: CardPart| {
            kvs.iter()
                .find(|kv| kv.key.strip_prefix(prefix) == Some(part.word()))
        };
        let counter = |name: CardPart| part(name).map_or(Ok(0), |kv| records::read_int(&kv.key, &kv.bytes()));
        let Some(kv) = part(CardPart::Record) else {
            return Ok(None);
        };
        Ok(Some(Self {
            record: records::read(&kv.key, &kv.bytes())?,
            revision: kv.mod_revision,
            available: counter(CardPart::Available)?,
            credits: counter(CardPart::Credits)?,
            debits: counter(CardPart::Debits)?,
            holds: counter(CardPart::Holds)?,
        }))
    }
}

impl Ledger {
    pub(crate) async fn is_demo_open(&self) -> Result<bool> {
        let mark = self.client.get(keys::DEMO).await.map_err(trouble)?;
        Ok(mark.is_some())
    }

    pub(crate) async fn mark_demo_open(&self) -> Result<()> {
        let mark = self.client.put(keys::DEMO, now_ms().to_string()).await;
        mark.map(drop).map_err(trouble)
    }

    /// Opens the card unless it is known already: then it stays as it is.
    pub(crate) async fn open_new_card(&self, opening: &Opening) -> Result<()> {
        let change = Change::from(opening, None, now_ms());
        let record = keys::card_part(&opening.card.id, CardPart::Record);
        let txn = Txn::new().when(Condition::absent(&record));
        let txn = change.ops.into_iter().fold(txn, Txn::then);
        self.commit("card", txn).await.map(drop)
    }

    async fn card_state(&self, card: &CardId) -> Result<Option<CardState>> {
        let prefix = keys::card(card);
        let page = self
            .read_range("card", RangeRequest::prefix(prefix.clone()))
            .await?;
        CardState::of(&prefix, &page.kvs)
    }

    pub(crate) async fn balance(&self, card: &CardId) -> Result<String> {
        let Some(state) = self.card_state(card).await? else {
            return Err(Problem::new(
                problem::UNKNOWN_CARD,
                "No card with this number was ever opened here.",
            ));
        };
        let record = state.record;
        Ok(answers::json(&Balance {
            id: card.to_string(),
            brand: record.brand,
            last4: record.last4,
            currency: record.currency,
            balance: Money::new(state.available, record.currency).to_json(),
            balance_minor: state.available,
            held_minor: state.holds,
            status: record.status,
        }))
    }

    pub(crate) async fn open_card(&self, opening: &Opening, once: Option<&Once>) -> Result<Reply> {
        for _ in 0..ROUNDS_MAX {
            let present = self.card_state(&opening.card.id).await?;
            if let Some(state) = &present
                && state.record.currency != opening.balance.currency
            {
                let detail = format!("This card is kept in {}.", state.record.currency);
                let refusal = Problem::new(problem::CARD_CURRENCY_FIXED, detail);
                return self.answered_or(once, refusal).await;
            }
            let change = Change::from(opening, present.as_ref(), now_ms());
            let status = if present.is_some() { 200 } else { 201 };
            let body = change.body(opening);
            if change.is_nothing && once.is_none() {
                return Ok(Reply::first(status, body));
            }
            let record_key = keys::card_part(&opening.card.id, CardPart::Record);
            let revision = present.map_or(0, |state| state.revision);
            let mut txn = Txn::new()
                .when(Condition::unchanged(&record_key, revision))
                .otherwise(Op::get(&record_key));
            txn = change.ops.iter().cloned().fold(txn, Txn::then);
            txn = self.keep(txn, once, &Kept::Body(status, &body), change.now_ms);
            let answer = self.commit("card", Self::guard(txn, once)).await?;
            if answer.branch == Branch::Then {
                // A payment that came between the read and the write has been paid from this balance.
                return Ok(Reply::first(status, body));
            }
            if let Some(reply) = Self::replay_of(once, answer.got(1))? {
                return Ok(reply);
            }
        }
        Err(Problem::new(
            problem::CONFLICT,
            "The card was changed by others again and again; read its balance and decide anew.",
        ))
    }
}

/// How a card gets from what it is to what it is wished to be.
struct Change {
    record: CardRecord,
    ops: Vec<Op>,
    is_nothing: bool,
    now_ms: u64,
}

impl Change {
    fn from(opening: &Opening, present: Option<&CardState>, now_ms: u64) -> Self {
        let (card, currency) = (&opening.card, opening.balance.currency);
        let before = present.map(|state| &state.record);
        let status = opening.status.or(before.map(|record| record.status));
        let status = status.unwrap_or_default();
        let difference = opening.balance.minor - present.map_or(0, |state| state.available);
        let fundings = before.map_or(0, |record| record.fundings);
        let record = CardRecord {
            brand: card.brand.clone(),
            last4: card.last4.clone(),
            currency,
            status,
            fundings: fundings + u64::from(difference != 0),
        };
        let is_nothing = before == Some(&record);
        let part = |part| keys::card_part(&card.id, part);
        let mut ops = Vec::new();
        if difference != 0 || present.is_none() {
            ops.push(Op::add(&part(CardPart::Available), difference, Some(0), None));
        }
        if difference != 0 {
            let (own, other, kind) = if difference > 0 {
                (CardPart::Credits, Side::Debits, TransferKind::Fund)
            } else {
                (CardPart::Debits, Side::Credits, TransferKind::Withdraw)
            };
            let size = difference.abs();
            let transfer = funding(&card.id, kind, Money::new(size, currency), now_ms);
            ops.push(Op::add(&part(own), size, None, None));
            ops.push(Op::add(
                &keys::funding_side(currency, &card.id, other),
                size,
                None,
                None,
            ));
            ops.push(Op::put(
                &keys::funded(&card.id, fundings),
                records::write(&transfer),
            ));
        }
        if !is_nothing {
            ops.push(Op::put(&part(CardPart::Record), records::write(&record)));
            ops.push(match status {
                CardStatus::Active => Op::put(&part(CardPart::Accepts), currency.code()),
                CardStatus::Blocked => Op::delete(&part(CardPart::Accepts)),
            });
        }
        Self {
            record,
            ops,
            is_nothing,
            now_ms,
        }
    }

    fn body(&self, opening: &Opening) -> String {
        let record = self.record.clone();
        answers::json(&CardOpened {
            card: Card {
                id: opening.card.id.to_string(),
                brand: record.brand,
                last4: record.last4,
                currency: record.currency,
                status: record.status,
            },
            balance: opening.balance.to_json(),
            balance_minor: opening.balance.minor,
        })
    }
}

fn funding(card: &CardId, kind: TransferKind, money: Money, now_ms: u64) -> TransferRecord {
    let (card, outside) = (keys::card_account(card), keys::funding_account(card));
    let (debit, credit) = match kind {
        TransferKind::Withdraw => (card, outside),
        _ => (outside, card),
    };
    TransferRecord {
        kind,
        debit,
        credit: Some(credit),
        amount: money.minor,
        currency: money.currency,
        created_ms: now_ms,
    }
}
