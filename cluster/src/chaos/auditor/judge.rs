//! What is wrong at a revision: with each order, payment and transfer that it changed, beside what they were before, and
//! with what must add up once all of it is applied.
//! Invariant: what was found to be wrong is told once, since it mostly stays so. Pure: it knows neither clock nor store.

use std::collections::{BTreeMap, BTreeSet};

use super::agreement;
use super::ledger::Ledger;
use super::orders::{self, Order};
use super::payments::{self, Kind, Payment, Transfer};
use super::places::{Place, Rows, place};
use super::shelves::Shelves;
use super::{AGREEMENTS, BALANCES, ORDERS, PAYMENTS, SHELVES};

/// Keys with their values, or that they were deleted, each once.
pub(super) type Changes = Vec<(String, Option<String>)>;

/// What came of a revision.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) faults: Vec<String>,
    /// Each thing that was judged.
    pub(super) judged: Vec<&'static str>,
}

#[derive(Default)]
pub(super) struct Judge {
    rows: Rows,
    /// Where each order stands, and which one a payment is for.
    orders: BTreeMap<String, String>,
    paid: BTreeMap<String, String>,
    shelves: Shelves,
    ledger: Ledger,
    told: BTreeSet<String>,
}

/// Whose parts a revision has changed.
#[derive(Default)]
struct Touched {
    orders: BTreeSet<String>,
    payments: BTreeSet<String>,
    /// Of payments or of the money of cards.
    transfers: Vec<(Option<String>, String)>,
    counters: Vec<(String, (i64, i64))>,
}

impl Judge {
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// All changes of the next revision.
    pub(super) fn take(&mut self, revision: u64, changes: &Changes) -> Found {
        let (mut found, mut touched) = (Found::default(), Touched::default());
        for (key, value) in changes {
            if let Some(place) = place(key) {
                let before = self.rows.put(key, value.as_deref());
                let change = Change {
                    key,
                    before: before.as_deref(),
                    after: value.as_deref(),
                };
                self.row(&place, change, &mut touched, &mut found);
            }
        }
        self.payments(&touched, &mut found);
        self.orders(touched, &mut found);
        let shelves = self.shelves.judge();
        self.standing(SHELVES, shelves, &mut found);
        let balances = self.ledger.judge();
        self.standing(BALANCES, balances, &mut found);
        for fault in &mut found.faults {
            *fault = format!("at revision {revision} {fault}");
        }
        found
    }

    fn row(&mut self, place: &Place<'_>, change: Change<'_>, touched: &mut Touched, found: &mut Found) {
        let Change { key, before, after } = change;
        match place {
            Place::Order { id } => {
                found.judged.push(ORDERS);
                let faults = orders::judge(before, after).into_iter();
                found
                    .faults
                    .extend(faults.map(|fault| format!("order {id} {fault}")));
                self.know(id, key, before, after);
                touched.orders.insert((*id).to_owned());
            }
            Place::Todo { order } => {
                touched.orders.insert((*order).to_owned());
            }
            Place::Payment { id, part: "record" } => {
                found.judged.push(PAYMENTS);
                let faults = payments::judge(before, after).into_iter();
                found
                    .faults
                    .extend(faults.map(|fault| format!("payment {id} {fault}")));
                touched.payments.insert((*id).to_owned());
            }
            Place::Payment { id, part } => {
                touched.payments.insert((*id).to_owned());
                if *part == "refunded" {
                    found.faults.extend(change.count(true).err());
                } else {
                    touched.transfer(Some(id), change, found);
                }
            }
            Place::Funded => touched.transfer(None, change, found),
            Place::Card { id, part: "record" } => {
                let faults = change.card().into_iter();
                found
                    .faults
                    .extend(faults.map(|fault| format!("card {id} {fault}")));
            }
            Place::Card { part: "accepts", .. } => {}
            Place::Card { part, .. } => {
                touched.counter(change, matches!(*part, "credits" | "debits"), found);
            }
            Place::Account { .. } => touched.counter(change, true, found),
            Place::Stock { product } => match change.count(false) {
                Ok((_, stock)) => self.shelves.stock(product, stock),
                Err(fault) => found.faults.push(fault),
            },
            Place::Received { product } => match change.count(false) {
                Ok((_, received)) => self.shelves.received(product, received),
                Err(fault) => found.faults.push(fault),
            },
        }
    }

    fn know(&mut self, id: &str, key: &str, before: Option<&str>, after: Option<&str>) {
        let (before, after) = (before.and_then(Order::read), after.and_then(Order::read));
        self.shelves.order(before.as_ref(), after.as_ref());
        self.orders.insert(id.to_owned(), key.to_owned());
        if let Some(payment) = after.and_then(|order| order.payment) {
            self.paid.insert(payment.id, id.to_owned());
        }
    }

    /// What belongs to payments, and the money that their transfers move.
    fn payments(&mut self, touched: &Touched, found: &mut Found) {
        let payment = |id: &str| self.rows.payment(id).and_then(Payment::read);
        for id in &touched.payments {
            let fault = match payment(id) {
                Some(payment) => payments::judge_transfers(&payment, self.rows.parts(id)),
                None => Some("has transfers and no record".to_owned()),
            };
            found
                .faults
                .extend(fault.map(|fault| format!("payment {id} {fault}")));
        }
        for (id, text) in &touched.transfers {
            let Some(transfer) = Transfer::read(text) else {
                continue;
            };
            let order = id.as_deref().and_then(payment).and_then(|payment| payment.order);
            let is_capture = transfer.kind == Kind::Capture;
            let held = order.filter(|_| is_capture).map_or(0, |order| order.amount);
            self.ledger.transfer(&transfer, held);
        }
        for (key, counted) in &touched.counters {
            match place(key) {
                Some(Place::Account { name, currency, side }) => {
                    self.ledger.count(&name, currency, side, *counted);
                }
                Some(Place::Card { id, part }) => {
                    let currency = self.rows.card(id).and_then(currency);
                    let currency = currency.unwrap_or_default();
                    self.ledger
                        .count(&format!("card:{id}"), &currency, part, *counted);
                }
                _ => {}
            }
        }
    }

    /// Orders beside what is to be done for them, and beside their payments.
    fn orders(&mut self, touched: Touched, found: &mut Found) {
        let mut orders = touched.orders;
        for payment in touched.payments {
            match self.paid.get(&payment) {
                Some(order) => {
                    orders.insert(order.clone());
                }
                None => found.faults.push(format!("payment {payment} is for no order")),
            }
        }
        for id in orders {
            let key = self.orders.get(&id);
            let order = key.and_then(|key| Order::read(self.rows.get(key)?));
            // That it is gone, or cannot be read, was told.
            let Some(order) = order else { continue };
            let shop = key.and_then(|key| key.split("/live/").next()).unwrap_or_default();
            let has_todo = self.rows.get(&format!("{shop}/todo/{id}")).is_some();
            if has_todo != order.status.is_under_way() {
                let todo = if has_todo { "a" } else { "no" };
                found
                    .faults
                    .push(format!("order {id} is {:?} with {todo} todo", order.status));
            }
            let payment = order.payment.as_ref().map_or("", |payment| &payment.id);
            let refunded = self.rows.parts(payment).find(|(part, _)| *part == "refunded");
            let refunded = refunded.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
            let payment = self.rows.payment(payment).and_then(Payment::read);
            let fault = agreement::judge(&id, &order, payment.as_ref(), refunded);
            self.standing(AGREEMENTS, vec![(format!("order {id}"), fault)], found);
        }
    }

    fn standing(&mut self, what: &'static str, judged: Vec<(String, Option<String>)>, found: &mut Found) {
        for (who, fault) in judged {
            found.judged.push(what);
            if let Some(fault) = fault
                && self.told.insert(who.clone())
            {
                found.faults.push(format!("{who}: {fault}"));
            }
        }
    }
}

impl Touched {
    fn transfer(&mut self, payment: Option<&str>, change: Change<'_>, found: &mut Found) {
        match (
            payments::judge_transfer(change.before, change.after),
            change.after,
        ) {
            (None, Some(text)) => {
                let payment = payment.map(str::to_owned);
                self.transfers.push((payment, text.to_owned()));
            }
            (fault, _) => {
                let fault = fault.map(|fault| format!("the transfer {} {fault}", change.key));
                found.faults.extend(fault);
            }
        }
    }

    fn counter(&mut self, change: Change<'_>, grows: bool, found: &mut Found) {
        match change.count(grows) {
            Ok(counted) => self.counters.push((change.key.to_owned(), counted)),
            Err(fault) => found.faults.push(fault),
        }
    }
}

/// Of one key.
#[derive(Clone, Copy)]
struct Change<'value> {
    key: &'value str,
    before: Option<&'value str>,
    after: Option<&'value str>,
}

impl Change<'_> {
    /// What a number was and is; one that only `grows` never shrinks, and none is deleted.
    fn count(&self, grows: bool) -> Result<(i64, i64), String> {
        let number = |text: Option<&str>| text.map_or(Ok(0), str::parse::<i64>);
        let Some(after) = self.after else {
            return Err(format!("the number {} {}", self.key, super::content::GONE));
        };
        match (number(self.before), after.parse()) {
            (Ok(before), Ok(after)) if grows && after < before => {
                Err(format!("{} went back from {before} to {after}", self.key))
            }
            (Ok(before), Ok(after)) => Ok((before, after)),
            _ => Err(format!("the number {} {}", self.key, super::content::UNREADABLE)),
        }
    }

    /// What is wrong with the record of a card.
    fn card(&self) -> Option<String> {
        use super::content::{GONE, UNREADABLE, changed, told};
        let Some(after) = self.after else {
            return Some(GONE.to_owned());
        };
        if currency(after).is_none() {
            return Some(UNREADABLE.to_owned());
        }
        told(&changed(self.before?, after, &["status", "fundings"]))
    }
}

/// Of a card by its record.
fn currency(record: &str) -> Option<String> {
    let record: serde_json::Value = serde_json::from_str(record).ok()?;
    record["currency"].as_str().map(str::to_owned)
}
