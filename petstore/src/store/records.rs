//! What is stored, as JSON. These are not the types on the wire; both sides convert by hand.
//! Invariant: an order says everything that another instance needs to bring it to its end. No card number, password
//! or session token is ever in a record.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use service::problem::{Problem, Result};

use super::mail::Errand;
use crate::domain::{Line, Lines, Status};

/// Who may sign in under a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AccountRecord {
    pub(crate) user: String,
    /// As it was typed when the account was made.
    pub(crate) username: String,
    /// In the form that password hashes have.
    pub(crate) hash: String,
    #[serde(default)]
    pub(crate) admin: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) username: String,
    pub(crate) created_ms: u64,
}

/// How often a name was tried, under a lease with which that is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TriesRecord {
    pub(crate) count: u64,
    /// 0. An older program has no lease for it and writes here until when it counts.
    #[serde(default)]
    pub(crate) until_ms: u64,
}

/// Under the hash of its token, and under a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) user: String,
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) admin: bool,
    pub(crate) expires_ms: u64,
    /// The revision of the account whose password was looked at; 0 where an older program began it.
    #[serde(default)]
    pub(crate) account: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CartRecord {
    /// Quantities by product, in the order in which they came.
    pub(crate) items: Vec<(String, i64)>,
    /// What they were called when the cart was changed, for when they are gone from the shelves. An older program and
    /// the letters of a checkout write none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: BTreeMap<String, String>,
}

impl CartRecord {
    /// What to call a product that is gone.
    pub(crate) fn name(&self, product: &str) -> String {
        let known = self.names.get(product).cloned();
        known.unwrap_or_else(|| format!("product {product}"))
    }

    pub(crate) fn quantity(&self, product: &str) -> i64 {
        let item = self.items.iter().find(|(known, _)| known == product);
        item.map_or(0, |(_, quantity)| *quantity)
    }

    /// None of it takes it out.
    pub(crate) fn set(&mut self, product: &str, quantity: i64) {
        match self.items.iter_mut().find(|(known, _)| known == product) {
            Some((_, present)) => *present = quantity,
            None => self.items.push((product.to_owned(), quantity)),
        }
        self.items.retain(|(_, quantity)| *quantity > 0);
    }

    /// Puts back what an order had taken out.
    pub(crate) fn merge(&mut self, lines: &[Line], quantity_max: i64) {
        for line in lines {
            let sum = self.quantity(&line.product).saturating_add(line.quantity);
            self.set(&line.product, sum.min(quantity_max));
            if !line.name.is_empty() {
                self.names.insert(line.product.clone(), line.name.clone());
            }
        }
    }
}

/// How an order is paid. Of the card there is a token, as long as it is needed, and what people know it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentOf {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) brand: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last4: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderRecord {
    pub(crate) status: Status,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
    pub(crate) lines: Lines,
    pub(crate) total_minor: i64,
    pub(crate) currency: String,
    /// Whether the cart was ordered, to which the lines return if the card is declined.
    #[serde(default)]
    pub(crate) from_cart: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payment: Option<PaymentOf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decline: Option<String>,
    /// How far it is, while it is carried on by messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errand: Option<Errand>,
}

impl OrderRecord {
    /// How many pieces of each product it has.
    pub(crate) fn quantities(&self) -> BTreeMap<&str, i64> {
        let mut quantities = BTreeMap::new();
        for line in &self.lines {
            *quantities.entry(line.product.as_str()).or_default() += line.quantity;
        }
        quantities
    }

    /// How many pieces of each product are off the shelves for it.
    pub(crate) fn taken(&self) -> BTreeMap<&str, i64> {
        match &self.errand {
            Some(errand) => {
                let held = errand.held.iter();
                held.map(|(product, pieces)| (product.as_str(), *pieces))
                    .collect()
            }
            None if self.status.reserves() || self.status.sells() => self.quantities(),
            None => BTreeMap::new(),
        }
    }
}

/// An order that has not ended, and which instance carries it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TodoRecord {
    pub(crate) user: String,
    pub(crate) owner: String,
}

/// A living instance, under its lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InstanceRecord {
    pub(crate) name: String,
}

pub(crate) fn write(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record)
        .expect("records have only text keys and plain values")
        .into()
}

/// What this service wrote and cannot read is damage, and never taken for absence.
pub(crate) fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| Problem::internal(&format!("read {key}"), error))
}

pub(crate) fn read_int(key: &str, value: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.parse()
        .map_err(|error: std::num::ParseIntError| Problem::internal(&format!("read {key}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_adds_up() {
        let mut cart = CartRecord::default();
        cart.set("1", 2);
        cart.set("2", 1);
        cart.set("1", 3);
        cart.set("2", 0);
        assert_eq!(cart.items, [("1".to_owned(), 3)]);
        let line = |product: &str, quantity| Line {
            product: product.to_owned(),
            name: String::new(),
            species: String::new(),
            unit_minor: 1,
            quantity,
        };
        let named = Line {
            name: "Rex".to_owned(),
            ..line("3", 1)
        };
        cart.merge(&[line("1", 9), named], 10);
        assert_eq!((cart.quantity("1"), cart.quantity("3")), (10, 1));
        assert_eq!(["1", "3"].map(|id| cart.name(id)), ["product 1", "Rex"]);
    }
}
