//! The accounts of the ledger, as their counters say and as their transfers make them, after each revision.
//! Invariant: one transaction is one revision; so at each, what some have given others have got, the counters are the
//! sums of the transfers, and no card and no merchant has less than nothing. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::payments::{Kind, Transfer};

/// In one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sides {
    credits: i128,
    debits: i128,
    holds: i128,
}

/// By name and currency.
type Account = (String, String);

#[derive(Default)]
pub(super) struct Ledger {
    counted: BTreeMap<Account, Sides>,
    /// What the transfers make.
    moved: BTreeMap<Account, Sides>,
    /// What cards may spend.
    available: BTreeMap<Account, i128>,
    /// Of all accounts, in each currency.
    totals: BTreeMap<String, Sides>,
    touched: BTreeSet<Account>,
}

impl Ledger {
    /// A counter was `before` and is `after`, where one that is not there is nothing.
    pub(super) fn count(&mut self, account: &str, currency: &str, side: &str, (before, after): (i64, i64)) {
        let account = (account.to_owned(), currency.to_owned());
        let by = i128::from(after) - i128::from(before);
        let total = self.totals.entry(currency.to_owned()).or_default();
        let counted = self.counted.entry(account.clone()).or_default();
        for sides in [counted, total] {
            match side {
                "credits" => sides.credits += by,
                "debits" => sides.debits += by,
                "holds" => sides.holds += by,
                _ => {}
            }
        }
        if side == "available" {
            self.available.insert(account.clone(), i128::from(after));
        }
        self.touched.insert(account);
    }

    /// A transfer came. Where it ends a hold, however little it takes, `held` is how much that was.
    pub(super) fn transfer(&mut self, transfer: &Transfer, held: i64) {
        let amount = i128::from(transfer.amount);
        let account = |name: &str| (name.to_owned(), transfer.currency.clone());
        let debit = self.moved.entry(account(&transfer.debit)).or_default();
        match transfer.kind {
            Kind::Hold => debit.holds += amount,
            Kind::Release => debit.holds -= amount,
            Kind::Capture => {
                debit.holds -= i128::from(held);
                debit.debits += amount;
            }
            Kind::Charge | Kind::Refund | Kind::Fund | Kind::Withdraw => debit.debits += amount,
        }
        self.touched.insert(account(&transfer.debit));
        if let Some(credit) = &transfer.credit {
            self.moved.entry(account(credit)).or_default().credits += amount;
            self.touched.insert(account(credit));
        }
    }

    /// Of each account that the last revision has touched, and each currency: its name, and what is wrong with it.
    pub(super) fn judge(&mut self) -> Vec<(String, Option<String>)> {
        let touched = std::mem::take(&mut self.touched);
        let currencies: BTreeSet<&String> = touched.iter().map(|(_, currency)| currency).collect();
        let totals = currencies.into_iter().map(|currency| {
            let total = self.totals.get(currency).copied().unwrap_or_default();
            let wrong = total.credits != total.debits;
            (
                currency.clone(),
                wrong.then(|| format!("all accounts together have {total:?}")),
            )
        });
        let totals: Vec<_> = totals.collect();
        let accounts = touched.iter().map(|account| {
            let (name, currency) = account;
            (format!("{name} in {currency}"), self.fault(account))
        });
        accounts.chain(totals).collect()
    }

    fn fault(&self, account: &Account) -> Option<String> {
        let counted = self.counted.get(account).copied().unwrap_or_default();
        let moved = self.moved.get(account).copied().unwrap_or_default();
        if counted != moved {
            return Some(format!("counts {counted:?}, and its transfers make {moved:?}"));
        }
        let left = counted.credits - counted.debits - counted.holds;
        let is_outside = account.0.starts_with("funding:");
        if counted.holds < 0 || (left < 0 && !is_outside) {
            return Some(format!("has less than nothing: {counted:?}"));
        }
        let is_card = account.0.starts_with("card:");
        let available = self.available.get(account).copied();
        (is_card && available != Some(left)).then(|| format!("may spend {available:?}, and has {left}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str = "card:c1";
    const SHOP: &str = "merchant:s:1";
    const OUTSIDE: &str = "funding:1";

    fn transfer(kind: Kind, debit: &str, credit: Option<&str>, amount: i64) -> Transfer {
        Transfer {
            kind,
            debit: debit.to_owned(),
            credit: credit.map(str::to_owned),
            amount,
            currency: "EUR".to_owned(),
        }
    }

    /// A card with 100, of which 30 are held and 20 of these taken.
    fn paid() -> Ledger {
        let mut ledger = Ledger::default();
        let mut count = |account: &str, side: &str, before, after| {
            ledger.count(account, "EUR", side, (before, after));
        };
        count(CARD, "credits", 0, 100);
        count(OUTSIDE, "debits", 0, 100);
        count(CARD, "available", 0, 80);
        count(CARD, "debits", 0, 20);
        count(SHOP, "credits", 0, 20);
        ledger.transfer(&transfer(Kind::Fund, OUTSIDE, Some(CARD), 100), 0);
        ledger.transfer(&transfer(Kind::Hold, CARD, None, 30), 0);
        ledger.transfer(&transfer(Kind::Capture, CARD, Some(SHOP), 20), 30);
        ledger
    }

    fn faults(ledger: &mut Ledger) -> Vec<String> {
        let judged = ledger.judge().into_iter();
        judged
            .filter_map(|(who, fault)| Some(format!("{who} {}", fault?)))
            .collect()
    }

    #[test]
    fn what_adds_up_passes_and_nothing_is_judged_twice() {
        let mut ledger = paid();
        assert_eq!(ledger.judge().len(), 4, "three accounts and a currency");
        assert!(ledger.judge().is_empty());
        assert!(faults(&mut paid()).is_empty());
    }

    #[test]
    fn money_that_arrives_nowhere_and_counters_without_transfers_are_found() {
        let mut ledger = paid();
        ledger.count(SHOP, "EUR", "credits", (20, 25));
        let found = faults(&mut ledger).join("; ");
        assert!(found.contains("merchant:s:1 in EUR counts"), "{found}");
        assert!(found.contains("EUR all accounts together"), "{found}");
        let mut ledger = paid();
        ledger.transfer(&transfer(Kind::Refund, SHOP, Some(CARD), 5), 0);
        assert_eq!(faults(&mut ledger).len(), 2);
    }

    #[test]
    fn a_card_with_less_than_nothing_or_a_wrong_guard_is_found() {
        let mut ledger = paid();
        ledger.count(CARD, "EUR", "available", (80, 79));
        assert!(faults(&mut ledger)[0].contains("may spend Some(79), and has 80"));
        let mut ledger = paid();
        ledger.transfer(&transfer(Kind::Charge, CARD, Some(SHOP), 90), 0);
        ledger.count(CARD, "EUR", "debits", (20, 110));
        ledger.count(CARD, "EUR", "available", (80, -10));
        ledger.count(SHOP, "EUR", "credits", (20, 110));
        let found = faults(&mut ledger);
        assert!(
            found.len() == 1 && found[0].contains("less than nothing"),
            "{found:?}"
        );
    }
}
