//! The proof of the ledger: takes every row of one revision in the order of keys and says what does not fit.
//! Invariant: everything the counters say is computed a second time from the transfers, which are never changed.
//! It keeps a few numbers for each account and nothing for each payment. It must not know how rows are read.

use std::collections::BTreeMap;

use payment_client::wire::{Status, TransferKind};
use payment_client::{Currency, Money};
use service::problem::Result;

use super::keys;
use super::records::{self, CardRecord, PaymentRecord, TransferRecord};

/// More would not help anybody.
pub(crate) const VIOLATIONS_MAX: usize = 100;

/// An account as its counters say, or as the transfers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sides {
    credits: i64,
    debits: i64,
    holds: i64,
}

#[derive(Clone, Debug, Default)]
struct CardTally {
    counted: Sides,
    available: i64,
    record: Option<CardRecord>,
    accepts: Option<String>,
}

/// The rows of one payment, which stand together.
#[derive(Clone, Debug, Default)]
struct PaymentTally {
    segment: String,
    record: Option<PaymentRecord>,
    transfers: Vec<TransferRecord>,
    refunds: i64,
    refunded: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    cards: BTreeMap<String, CardTally>,
    /// Merchants and funding, by the name that transfers give them, and the currency.
    others: BTreeMap<(String, Currency), Sides>,
    /// What the transfers make of each account.
    moved: BTreeMap<(String, Currency), Sides>,
    payment: Option<PaymentTally>,
    pub(crate) violations: Vec<String>,
}

/// The sums of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) currency: Currency,
    pub(crate) debits: i64,
    pub(crate) credits: i64,
    pub(crate) holds: i64,
}

impl Tally {
    fn violation(&mut self, what: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what.into());
        }
    }

    /// The next row, in the order of keys.
    pub(crate) fn row(&mut self, key: &str, value: &[u8]) -> Result<()> {
        if let Some(rest) = key.strip_prefix(keys::PAYMENTS) {
            return self.payment_row(key, rest, value);
        }
        if let Some(rest) = key.strip_prefix(keys::CARDS) {
            self.card_row(key, rest, value)
        } else if key.starts_with(keys::FUNDED) {
            self.transfer(&records::read(key, value)?);
            Ok(())
        } else if let Some(rest) = key.strip_prefix(keys::FUNDING) {
            let mut parts = rest.split('/');
            let (currency, stripe, side) = (parts.next(), parts.next(), parts.next());
            let account = stripe.map(|stripe| format!("funding:{stripe}"));
            self.other_row(key, account, currency, side, value)
        } else if let Some(rest) = key.strip_prefix(keys::MERCHANTS) {
            let mut parts = rest.split('/');
            let (currency, merchant) = (parts.next(), parts.next());
            let (stripe, side) = (parts.next(), parts.next());
            let account = merchant.zip(stripe);
            let account = account.map(|(merchant, stripe)| format!("merchant:{merchant}:{stripe}"));
            self.other_row(key, account, currency, side, value)
        } else {
            Ok(())
        }
    }

    fn card_row(&mut self, key: &str, rest: &str, value: &[u8]) -> Result<()> {
        let Some((card, part)) = rest.split_once('/') else {
            self.violation(format!("{key} belongs to no card"));
            return Ok(());
        };
        let tally = self.cards.entry(card.to_owned()).or_default();
        match part {
            "record" => tally.record = Some(records::read(key, value)?),
            "accepts" => tally.accepts = Some(String::from_utf8_lossy(value).into_owned()),
            "available" => tally.available = records::read_int(key, value)?,
            "credits" => tally.counted.credits = records::read_int(key, value)?,
            "debits" => tally.counted.debits = records::read_int(key, value)?,
            "holds" => tally.counted.holds = records::read_int(key, value)?,
            _ => self.violation(format!("{key} is no part of a card")),
        }
        Ok(())
    }

    fn other_row(
        &mut self,
        key: &str,
        account: Option<String>,
        currency: Option<&str>,
        side: Option<&str>,
        value: &[u8],
    ) -> Result<()> {
        let currency = currency.and_then(|currency| currency.parse::<Currency>().ok());
        let (Some(account), Some(currency), Some(side)) = (account, currency, side) else {
            self.violation(format!("{key} belongs to no account"));
            return Ok(());
        };
        let amount = records::read_int(key, value)?;
        let sides = self.others.entry((account, currency)).or_default();
        match side {
            "credits" => sides.credits = amount,
            "debits" => sides.debits = amount,
            _ => self.violation(format!("{key} is no side of an account")),
        }
        Ok(())
    }

    fn payment_row(&mut self, key: &str, rest: &str, value: &[u8]) -> Result<()> {
        let (segment, part) = rest.split_once('/').unwrap_or((rest, ""));
        let same = self
            .payment
            .as_ref()
            .is_some_and(|payment| payment.segment == segment);
        if !same {
            self.close_payment();
        }
        let payment = self.payment.get_or_insert_with(|| PaymentTally {
            segment: segment.to_owned(),
            ..PaymentTally::default()
        });
        match part {
            "record" => payment.record = Some(records::read(key, value)?),
            "refunded" => payment.refunded = records::read_int(key, value)?,
            _ => {
                let transfer: TransferRecord = records::read(key, value)?;
                if part.starts_with("refund/") {
                    payment.refunds = payment.refunds.saturating_add(transfer.amount);
                } else {
                    payment.transfers.push(transfer.clone());
                }
                self.transfer(&transfer);
            }
        }
        Ok(())
    }

    /// Moves the money a second time.
    fn transfer(&mut self, transfer: &TransferRecord) {
        if transfer.amount <= 0 {
            let what = format!("a transfer from {} moves {}", transfer.debit, transfer.amount);
            return self.violation(what);
        }
        let currency = transfer.currency;
        let mut change = |account: &str, change: fn(&mut Sides) -> &mut i64, amount: i64| {
            let sides = self.moved.entry((account.to_owned(), currency)).or_default();
            let side = change(sides);
            *side = side.saturating_add(amount);
        };
        match (&transfer.credit, transfer.kind) {
            (None, TransferKind::Hold) => change(&transfer.debit, |sides| &mut sides.holds, transfer.amount),
            (None, TransferKind::Release) => {
                change(&transfer.debit, |sides| &mut sides.holds, -transfer.amount);
            }
            (Some(credit), TransferKind::Hold | TransferKind::Release) => {
                self.violation(format!("a hold moves money to {credit}"));
            }
            (Some(credit), _) => {
                change(&transfer.debit, |sides| &mut sides.debits, transfer.amount);
                change(credit, |sides| &mut sides.credits, transfer.amount);
            }
            (None, _) => self.violation(format!("money leaves {} and arrives nowhere", transfer.debit)),
        }
    }

    /// All rows of a payment were seen.
    fn close_payment(&mut self) {
        let Some(payment) = self.payment.take() else {
            return;
        };
        let name = &payment.segment;
        let Some(record) = &payment.record else {
            return self.violation(format!("payment {name} has transfers but no record"));
        };
        let count = |kind| payment.transfers.iter().filter(|one| one.kind == kind).count();
        let (holds, charges) = (count(TransferKind::Hold), count(TransferKind::Charge));
        let (captures, releases) = (count(TransferKind::Capture), count(TransferKind::Release));
        let fits = match (record.status, &record.order) {
            (Status::Authorized, Some(_)) => (holds, charges, captures, releases) == (1, 0, 0, 0),
            (Status::Captured, Some(_)) => {
                (holds, charges, captures, releases) == (1, 0, 1, 0)
                    || (holds, charges, captures, releases) == (0, 1, 0, 0)
            }
            (Status::Canceled | Status::Expired, Some(_)) => {
                (holds, charges, captures, releases) == (1, 0, 0, 1)
            }
            (Status::Declined, Some(_)) | (Status::Canceled, None) => payment.transfers.is_empty(),
            (_, None) => false,
        };
        if !fits {
            let kinds: Vec<_> = payment.transfers.iter().map(|one| one.kind).collect();
            let status = record.status.word();
            self.violation(format!(
                "payment {name} is {status} but its transfers are {kinds:?}"
            ));
        }
        self.check_amounts(&payment, record);
        if let Some(order) = &record.order
            && count(TransferKind::Capture) == 1
        {
            // A capture ends the whole hold, however little it takes.
            let account = (format!("card:{}", order.card), order.currency);
            self.moved.entry(account).or_default().holds -= order.amount;
        }
    }

    fn check_amounts(&mut self, payment: &PaymentTally, record: &PaymentRecord) {
        let name = &payment.segment;
        let amount = record.order.as_ref().map_or(0, |order| order.amount);
        let taken: i64 = payment
            .transfers
            .iter()
            .filter(|one| matches!(one.kind, TransferKind::Charge | TransferKind::Capture))
            .map(|one| one.amount)
            .sum();
        if taken != record.captured || record.captured > amount {
            let captured = record.captured;
            self.violation(format!(
                "payment {name} of {amount} has {captured} captured, but {taken} moved"
            ));
        }
        let held = payment.transfers.iter();
        let mut held = held.filter(|one| matches!(one.kind, TransferKind::Hold | TransferKind::Release));
        if held.any(|one| one.amount != amount) {
            self.violation(format!("payment {name} of {amount} holds another amount"));
        }
        if payment.refunds != payment.refunded || payment.refunded > record.captured {
            let (refunds, refunded) = (payment.refunds, payment.refunded);
            self.violation(format!(
                "payment {name} counts {refunded} refunded, but its refunds are {refunds} of {}",
                record.captured
            ));
        }
    }

    /// All rows were seen: the sums of each currency, and in `violations` what does not fit.
    pub(crate) fn finish(&mut self) -> Vec<Total> {
        self.close_payment();
        let mut totals: BTreeMap<Currency, Total> = BTreeMap::new();
        let mut add = |currency, sides: Sides| {
            let total = totals.entry(currency).or_insert(Total {
                currency,
                debits: 0,
                credits: 0,
                holds: 0,
            });
            total.debits = total.debits.saturating_add(sides.debits);
            total.credits = total.credits.saturating_add(sides.credits);
            total.holds = total.holds.saturating_add(sides.holds);
        };
        for (card, tally) in std::mem::take(&mut self.cards) {
            if let Some(currency) = self.check_card(&card, &tally) {
                add(currency, tally.counted);
            }
        }
        for ((account, currency), counted) in std::mem::take(&mut self.others) {
            self.check_account(&account, currency, counted);
            add(currency, counted);
        }
        for ((account, currency), moved) in std::mem::take(&mut self.moved) {
            if moved != Sides::default() {
                self.violation(format!("{account} has transfers in {currency}, but no counters"));
            }
        }
        for total in totals.values() {
            if total.debits != total.credits {
                let told = |minor| Money::new(minor, total.currency).to_string();
                let (debits, credits) = (told(total.debits), told(total.credits));
                self.violation(format!("{}: debits {debits}, credits {credits}", total.currency));
            }
        }
        totals.into_values().collect()
    }

    fn check_card(&mut self, card: &str, tally: &CardTally) -> Option<Currency> {
        let Some(record) = &tally.record else {
            self.violation(format!("card {card} has counters but no record"));
            return None;
        };
        let Sides {
            credits,
            debits,
            holds,
        } = tally.counted;
        let available = tally.available;
        if available != credits - debits - holds || available < 0 || holds < 0 {
            self.violation(format!(
                "card {card} has {available} available, but credits {credits} - debits {debits} - holds {holds}"
            ));
        }
        let active = record.status == payment_client::wire::CardStatus::Active;
        let accepts = active.then(|| record.currency.code());
        if tally.accepts.as_deref() != accepts {
            self.violation(format!(
                "card {card} accepts {:?}, not {accepts:?}",
                tally.accepts
            ));
        }
        self.check_account(&format!("card:{card}"), record.currency, tally.counted);
        Some(record.currency)
    }

    fn check_account(&mut self, account: &str, currency: Currency, counted: Sides) {
        let moved = self.moved.remove(&(account.to_owned(), currency));
        let moved = moved.unwrap_or_default();
        if moved != counted {
            self.violation(format!(
                "{account} counts {counted:?} in {currency}, but its transfers make {moved:?}"
            ));
        }
    }
}
