//! The typed client of the payment service, and the types on its wire.
//! Reading order: `wire` (what travels), `token`, `client`, `error`.
//! Every call may be repeated: a payment is named by the caller, and the name is what makes it happen once.
//! It must not know how the service stores anything.

#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent.rs"]
mod bent;
mod call;
mod client;
mod error;
mod token;
pub mod wire;

pub use client::{Builder, NewPayment, PaymentClient, PaymentPages, Source};
pub use error::{Error, Result};
pub use service::currency::{Currency, UnknownCurrency};
pub use service::money::{Money, MoneyError};
pub use token::{TOKEN_START, looks_like_token};
