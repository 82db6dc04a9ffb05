//! The proof of the ledger: takes every row of one revision in the order of keys and says what does not fit.
//! Invariant: everything the counters say is computed a second time from the transfers, which are never changed.
//! It keeps a few numbers for each account and none for each payment but those held. It must not know how rows are read.

mod entries;

use std::collections::BTreeMap;

use payment_client::wire::{Status, TransferKind};
use payment_client::{Currency, Money};
use serde::de::DeserializeOwned;

use self::entries::Entries;
use super::keys;
use super::records::{CardRecord, PaymentRecord, TransferRecord};

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
    entries: Entries,
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

    /// A row that cannot be read is one more thing that does not fit, and the walk goes on behind it.
    fn unreadable(&mut self, key: &str) {
        self.violation(format!("{key} cannot be read"));
    }

    /// The next row, in the order of keys.
    pub(crate) fn row(&mut self, key: &str, value: &[u8]) {
        if let Some(rest) = key.strip_prefix(keys::PAYMENTS) {
            self.payment_row(key, rest, value);
        } else if let Some(rest) = key.strip_prefix(keys::CARDS) {
            self.card_row(key, rest, value);
        } else if key.starts_with(keys::FUNDED) {
            match read::<TransferRecord>(value) {
                Some(transfer) => self.transfer(&transfer),
                None => self.unreadable(key),
            }
        } else if let Some(rest) = key.strip_prefix(keys::FUNDING) {
            let mut parts = rest.split('/');
            let (currency, stripe, side) = (parts.next(), parts.next(), parts.next());
            let account = stripe.map(|stripe| format!("funding:{stripe}"));
            self.other_row(key, account, currency, side, value);
        } else if let Some(rest) = key.strip_prefix(keys::MERCHANTS) {
            let mut parts = rest.split('/');
            let (currency, merchant) = (parts.next(), parts.next());
            let (stripe, side) = (parts.next(), parts.next());
            let account = merchant.zip(stripe);
            let account = account.map(|(merchant, stripe)| format!("merchant:{merchant}:{stripe}"));
            self.other_row(key, account, currency, side, value);
        } else if let Some(rest) = key.strip_prefix(keys::ORDERS) {
            self.entries.order_row(key, rest);
        } else {
            self.entries.due_row(key);
        }
    }

    fn card_row(&mut self, key: &str, rest: &str, value: &[u8]) {
        let Some((card, part)) = rest.split_once('/') else {
            return self.violation(format!("{key} belongs to no card"));
        };
        let card = self.cards.entry(card.to_owned()).or_default();
        let was_read = match part {
            "record" => take(&mut card.record, read(value).map(Some)),
            "accepts" => take(
                &mut card.accepts,
                Some(Some(String::from_utf8_lossy(value).into_owned())),
            ),
            "available" => take(&mut card.available, read_int(value)),
            "credits" => take(&mut card.counted.credits, read_int(value)),
            "debits" => take(&mut card.counted.debits, read_int(value)),
            "holds" => take(&mut card.counted.holds, read_int(value)),
            _ => return self.violation(format!("{key} is no part of a card")),
        };
        if !was_read {
            self.unreadable(key);
        }
    }

    fn other_row(
        &mut self,
        key: &str,
        account: Option<String>,
        currency: Option<&str>,
        side: Option<&str>,
        value: &[u8],
    ) {
        let currency = currency.and_then(|currency| currency.parse::<Currency>().ok());
        let (Some(account), Some(currency), Some(side)) = (account, currency, side) else {
            return self.violation(format!("{key} belongs to no account"));
        };
        let sides = self.others.entry((account, currency)).or_default();
        let was_read = match side {
            "credits" => take(&mut sides.credits, read_int(value)),
            "debits" => take(&mut sides.debits, read_int(value)),
            _ => return self.violation(format!("{key} is no side of an account")),
        };
        if !was_read {
            self.unreadable(key);
        }
    }

    fn payment_row(&mut self, key: &str, rest: &str, value: &[u8]) {
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
        let was_read = match part {
            "record" => take(&mut payment.record, read(value).map(Some)),
            "refunded" => take(&mut payment.refunded, read_int(value)),
            _ => {
                let Some(transfer) = read::<TransferRecord>(value) else {
                    return self.unreadable(key);
                };
                if part.starts_with("refund/") {
                    payment.refunds = payment.refunds.saturating_add(transfer.amount);
                } else {
                    payment.transfers.push(transfer.clone());
                }
                return self.transfer(&transfer);
            }
        };
        if !was_read {
            self.unreadable(key);
        }
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
        if let Some(missing) = self.entries.payment(name, record) {
            self.violation(missing);
        }
        if let Some(order) = &record.order
            && count(TransferKind::Capture) == 1
        {
            // A capture ends the whole hold, however little it takes.
            let account = (format!("card:{}", order.card), order.currency);
            let holds = &mut self.moved.entry(account).or_default().holds;
            *holds = holds.saturating_sub(order.amount);
        }
    }

    fn check_amounts(&mut self, payment: &PaymentTally, record: &PaymentRecord) {
        let name = &payment.segment;
        let amount = record.order.as_ref().map_or(0, |order| order.amount);
        let taken: i128 = payment
            .transfers
            .iter()
            .filter(|one| matches!(one.kind, TransferKind::Charge | TransferKind::Capture))
            .map(|one| i128::from(one.amount))
            .sum();
        if taken != i128::from(record.captured) || record.captured > amount {
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
        for missing in self.entries.finish() {
            self.violation(missing);
        }
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
        // Damaged counters may be of any size.
        let left = i128::from(credits) - i128::from(debits) - i128::from(holds);
        if i128::from(available) != left || available < 0 || holds < 0 {
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

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

fn read_int(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether there was something to take over.
fn take<T>(place: &mut T, read: Option<T>) -> bool {
    let was_read = read.is_some();
    if let Some(read) = read {
        *place = read;
    }
    was_read
}

#[cfg(test)]
mod tests;
