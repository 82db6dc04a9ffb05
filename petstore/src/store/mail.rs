//! Letters between actors, as they lie in their mailboxes, and how far an order is that they carry on.
//! Invariant: a piece that is off the shelf is named in exactly one place, a letter or the state of an order, so that
//! an audit of any moment can count it. No letter holds a card number.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::records::PaymentOf;
use crate::domain::{OrderId, Paid, Status, Step, UserId};

/// Who has a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Actor {
    /// The state machine of one order.
    Order {
        user: String,
        id: String,
    },
    /// The shelf of one product.
    Inventory {
        product: String,
    },
    /// Talks to the payment service about one order.
    Card {
        user: String,
        id: String,
    },
    Cart {
        user: String,
    },
    /// Tells the owner of an order what became of it where the order itself cannot.
    Notify {
        user: String,
        id: String,
    },
}

impl Actor {
    pub(crate) fn order(user: &UserId, id: &OrderId) -> Self {
        Self::Order {
            user: user.to_string(),
            id: id.to_string(),
        }
    }

    pub(crate) fn notify(user: &UserId, id: &OrderId) -> Self {
        Self::Notify {
            user: user.to_string(),
            id: id.to_string(),
        }
    }

    pub(crate) fn inventory(product: &str) -> Self {
        Self::Inventory {
            product: product.to_owned(),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Order { .. } => "order",
            Self::Inventory { .. } => "inventory",
            Self::Card { .. } => "card",
            Self::Cart { .. } => "cart",
            Self::Notify { .. } => "notify",
        }
    }

    /// What decides which shard it is in. All that belongs to one order is in one shard.
    pub(crate) fn home(&self) -> &str {
        match self {
            Self::Order { id, .. } | Self::Card { id, .. } | Self::Notify { id, .. } => id,
            Self::Inventory { product } => product,
            Self::Cart { user } => user,
        }
    }
}

/// What one actor tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Letter {
    // To an order.
    Place,
    Reserved {
        product: String,
        pieces: i64,
    },
    Short {
        product: String,
        available: i64,
    },
    Released {
        product: String,
    },
    CartTaken,
    CartChanged,
    CartFilled,
    Paid {
        step: Step,
        paid: Paid,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment: Option<PaymentOf>,
    },
    Cancel,
    TooLate,
    // To an inventory.
    Reserve {
        order: Actor,
        pieces: i64,
    },
    Release {
        order: Actor,
        pieces: i64,
    },
    // To a card.
    Pay {
        step: Step,
        payment: PaymentOf,
        total_minor: i64,
        currency: String,
    },
    // To a cart.
    TakeCart {
        order: Actor,
        revision: u64,
    },
    FillCart {
        order: Actor,
        items: Vec<(String, i64)>,
    },
    // To whoever ordered.
    Refused(Refusal),
}

/// Why there is no order although one was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) extra: Map<String, Value>,
    #[serde(default)]
    pub(crate) at_ms: u64,
}

/// A letter in its mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) to: Actor,
    pub(crate) letter: Letter,
    /// How often it failed.
    #[serde(default)]
    pub(crate) failures: u32,
    /// How often what it needs was not there, which is nobody's fault.
    #[serde(default)]
    pub(crate) waits: u32,
    #[serde(default)]
    pub(crate) due_ms: u64,
}

/// A letter that nobody could do anything with, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadRecord {
    /// Its key in the mailbox, to which it can return.
    pub(crate) key: String,
    pub(crate) error: String,
    pub(crate) at_ms: u64,
    /// As it was written.
    pub(crate) post: String,
}

/// How far an order is that letters carry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Errand {
    pub(crate) phase: Phase,
    /// Pieces that were taken off the shelves for it.
    #[serde(default)]
    pub(crate) held: BTreeMap<String, i64>,
    /// Products whose inventory has still to answer.
    #[serde(default)]
    pub(crate) awaited: BTreeSet<String>,
    #[serde(default)]
    pub(crate) awaits_cart: bool,
    /// What there was too little of, with how much there was.
    #[serde(default)]
    pub(crate) short: BTreeMap<String, i64>,
    /// A cancel that came while the goods were being gathered.
    #[serde(default)]
    pub(crate) canceled: bool,
    /// Of the cart that was ordered, as the buyer saw it.
    #[serde(default)]
    pub(crate) cart_revision: u64,
    /// Where the letter lies that ends it after some time, and the answer to its idempotency key.
    #[serde(default)]
    pub(crate) timer: String,
    #[serde(default)]
    pub(crate) answers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// The inventories are asked for the goods.
    Gathering,
    /// The cart is asked whether it is still the one that was ordered.
    TakingCart,
    /// The payment service has the word.
    Paying,
    /// Everything goes back, and then the order ends like this.
    Returning(Status),
    /// Everything goes back, and then there never was an order.
    Refusing(Refusal),
}

impl Errand {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            phase,
            held: BTreeMap::new(),
            awaited: BTreeSet::new(),
            awaits_cart: false,
            short: BTreeMap::new(),
            canceled: false,
            cart_revision: 0,
            timer: String::new(),
            answers: Vec::new(),
        }
    }
}

impl Post {
    pub(crate) fn new(to: Actor, letter: Letter) -> Self {
        Self {
            to,
            letter,
            failures: 0,
            waits: 0,
            due_ms: 0,
        }
    }

    /// Pieces that are off the shelf on behalf of this letter alone.
    pub(crate) fn pieces(&self) -> Option<(&str, i64)> {
        match (&self.letter, &self.to) {
            (Letter::Reserved { product, pieces }, _)
            | (Letter::Release { pieces, .. }, Actor::Inventory { product }) => Some((product, *pieces)),
            _ => None,
        }
    }
}
