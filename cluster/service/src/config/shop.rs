//! The settings of the pet shops.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `bounds`.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShopConfig {
    /// Tells the shop from others that share the store, and is the merchant it is paid as.
    pub name: String,
    /// `host:port` of each instance: the first is `shop1`.
    pub addresses: Vec<String>,
    pub auth: ShopAuth,
    /// How an order gets from being asked for to its end; may be changed while orders are under way.
    pub checkout: Checkout,
    /// In mailbox mode: unfinished orders that one product may be part of; more are refused as overloaded.
    pub mailbox_max: u64,
    /// In mailbox mode: actors that one instance holds in memory; the letters of others wait in the store.
    pub actors_max: usize,
    /// In which currency everything is sold.
    pub currency: String,
    /// Whether goods for trying out are put on the shelves on the first start.
    pub demo: bool,
    /// Whether cookies are only sent over TLS, which then something in front must speak.
    pub secure_cookies: bool,
    /// How long somebody stays signed in.
    pub session_s: u64,
    /// How often a name may be tried within `sign_in_window_s` before further tries have to wait.
    pub sign_in_tries_max: u64,
    pub sign_in_window_s: u64,
    /// Passwords that are hashed at the same time; each takes 19 MiB and much of a processor.
    pub hashes_at_once: usize,
    /// An order that is not paid after so long is canceled.
    pub order_pending_s: u64,
    /// How long `POST /orders` waits for the end of the order before it answers 202.
    pub order_wait_ms: u64,
    /// Orders that one instance carries on at the same time.
    pub orders_at_once: usize,
    /// How often unfinished orders of instances that are gone are looked for.
    pub adopt_every_ms: u64,
    /// After so long without a sign of life an instance is no longer registered, and its orders go to others.
    pub registration_ms: u64,
    /// How long answers to idempotency keys are kept, and how often what has run out is looked for.
    pub answer_s: u64,
    pub sweep_every_ms: u64,
    /// The most that one piece may cost, in minor units; how many pieces there may be of a product; how many products.
    pub price_minor_max: u64,
    pub stock_max: u64,
    pub products_max: usize,
    /// Streams of events that one instance serves.
    pub events_max: usize,
    /// The largest body of a request.
    pub body_bytes_max: usize,
    /// The time a request may take; an audit gets `audit_ms_max`.
    pub request_ms_max: u64,
    pub audit_ms_max: u64,
}

/// Who may do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShopAuth {
    /// Users sign in; each has a cart and orders of their own, and the admin the shelves.
    #[default]
    Accounts,
    /// Everybody is trusted, as in a classroom: the user of a path is taken at its word, and an order without a card
    /// is simply confirmed.
    Open,
}

/// How the parts of a checkout work together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkout {
    /// One after the other: a transaction that reserves everything, then calls to the payment service.
    #[default]
    Direct,
    /// By messages between actors whose mailboxes are in the store.
    Mailbox,
}

impl Default for ShopConfig {
    fn default() -> Self {
        Self {
            name: "menagerie".to_owned(),
            addresses: Vec::new(),
            auth: ShopAuth::Accounts,
            checkout: Checkout::Direct,
            mailbox_max: 1000,
            actors_max: 10_000,
            currency: "EUR".to_owned(),
            demo: true,
            secure_cookies: false,
            session_s: 43_200,
            sign_in_tries_max: 10,
            sign_in_window_s: 60,
            hashes_at_once: 2,
            order_pending_s: 900,
            order_wait_ms: 5000,
            orders_at_once: 512,
            adopt_every_ms: 1000,
            registration_ms: 3000,
            answer_s: 86_400,
            sweep_every_ms: 5000,
            price_minor_max: 100_000_000,
            stock_max: 1_000_000,
            products_max: 10_000,
            events_max: 500,
            body_bytes_max: 64 * 1024,
            request_ms_max: 5000,
            audit_ms_max: 120_000,
        }
    }
}

impl ShopConfig {
    /// Name and address of every instance.
    pub fn instances(&self) -> impl Iterator<Item = (String, &str)> {
        super::named("shop", &self.addresses)
    }

    /// The address of the instance of this name.
    pub fn address(&self, name: &str) -> Option<&str> {
        super::named_address("shop", &self.addresses, name)
    }
}
