//! All tests of the shop, with the checkout that calls one thing after the other.

use service::config::Checkout;

pub(crate) const CHECKOUT: Checkout = Checkout::Direct;

#[path = "accounts.rs"]
mod accounts;
#[path = "anew.rs"]
mod anew;
#[path = "browsing.rs"]
mod browsing;
#[path = "buyers.rs"]
mod buyers;
#[path = "carts.rs"]
mod carts;
#[path = "events.rs"]
mod events;
#[path = "forms.rs"]
mod forms;
#[path = "hostile.rs"]
mod hostile;
#[path = "idempotency.rs"]
mod idempotency;
#[path = "keyed_forms.rs"]
mod keyed_forms;
#[path = "kills.rs"]
mod kills;
#[path = "looks.rs"]
mod looks;
#[path = "open.rs"]
mod open;
#[path = "orders.rs"]
mod orders;
#[path = "pages.rs"]
mod pages;
#[path = "products.rs"]
mod products;
#[path = "purchase.rs"]
mod purchase;
#[path = "random.rs"]
mod random;
#[path = "repeats.rs"]
mod repeats;
#[path = "secrecy.rs"]
mod secrecy;
#[path = "sessions.rs"]
mod sessions;
#[path = "shelves.rs"]
mod shelves;
#[path = "still.rs"]
mod still;
#[path = "system.rs"]
mod system;
#[path = "wire.rs"]
mod wire;
