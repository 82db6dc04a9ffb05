//! What leads to payments: the entries of orders, and the entries that end holds when their time is over.
//! Invariant: each payment has the entries that were written with it. It keeps a number for each hold and a few for
//! each merchant, and nothing for any other payment. It must not know money.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use payment_client::wire::Status;

use crate::domain::{MerchantName, OrderRef, PaymentId};
use crate::ledger::find::decoded;
use crate::ledger::keys;
use crate::ledger::records::PaymentRecord;

#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// Each stands for an entry that ends a hold.
    due: HashSet<u64>,
    /// By merchant, as keys name it.
    orders: BTreeMap<String, Orders>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// As they are there.
    entries: Keys,
    /// As the payments want them.
    wanted: Keys,
}

/// Stands for a set of keys, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Keys {
    count: u64,
    sum: u64,
}

impl Keys {
    fn add(&mut self, key: &str) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash(key));
    }
}

impl Entries {
    /// Of all that is due only holds matter: the rest is forgotten without harm.
    pub(super) fn due_row(&mut self, key: &str) {
        let kind = key
            .strip_prefix(keys::DUE)
            .and_then(|rest| rest.split('/').nth(1));
        if kind == Some("hold") {
            self.due.insert(hash(key));
        }
    }

    pub(super) fn order_row(&mut self, key: &str, rest: &str) {
        let merchant = rest.split('/').next().unwrap_or_default();
        let orders = self.orders.entry(merchant.to_owned()).or_default();
        orders.entries.add(key);
    }

    /// All that is due was seen before. Says what is missing for a payment, if that can be said already.
    pub(super) fn payment(&mut self, segment: &str, record: &PaymentRecord) -> Option<String> {
        // An id that was canceled before it was seen belongs to no order.
        let order = record.order.as_ref()?;
        let id = PaymentId::stored(decoded(segment));
        let merchant = MerchantName::stored(order.merchant.as_str());
        let order_ref = order.order_ref.as_deref().map(OrderRef::stored);
        let orders = self.orders.entry(merchant.segment().to_string()).or_default();
        orders
            .wanted
            .add(&keys::order_entry(&merchant, order_ref.as_ref(), &id));
        let ends = |at_ms| self.due.contains(&hash(&keys::due_hold(at_ms, &id)));
        let is_stuck = record.status == Status::Authorized && !order.expires_ms.is_some_and(ends);
        is_stuck.then(|| format!("payment {segment} is held, and no entry would end its hold"))
    }

    /// All rows were seen.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let orders = std::mem::take(&mut self.orders).into_iter();
        let differing = orders.filter(|(_, orders)| orders.entries != orders.wanted);
        differing
            .map(|(merchant, Orders { entries, wanted })| {
                format!(
                    "merchant {merchant} has {} payments, but {} entries of orders that do not fit them",
                    wanted.count, entries.count
                )
            })
            .collect()
    }
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
