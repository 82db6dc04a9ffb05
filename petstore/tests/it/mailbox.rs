//! All tests of the shop, with the checkout by letters between actors, and those of its own.

use service::config::Checkout;

pub(crate) const CHECKOUT: Checkout = Checkout::Mailbox;

#[path = "accounts.rs"]
mod accounts;
#[path = "browsing.rs"]
mod browsing;
#[path = "buyers.rs"]
mod buyers;
#[path = "cancels.rs"]
mod cancels;
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
#[path = "kills.rs"]
mod kills;
#[path = "letters.rs"]
mod letters;
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
#[path = "sessions.rs"]
mod sessions;
#[path = "shelves.rs"]
mod shelves;
#[path = "still.rs"]
mod still;
#[path = "system.rs"]
mod system;
#[path = "waits.rs"]
mod waits;
#[path = "wire.rs"]
mod wire;
