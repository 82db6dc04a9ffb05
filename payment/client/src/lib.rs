//! The typed client of the payment service, the types on its wire, and money.
//! Reading order: `money` (amounts that cannot be wrong), `wire` (what travels), `client`, `error`.
//! Every call may be repeated: a payment is named by the caller, and the name is what makes it happen once.
//! It must not know how the service stores anything.

mod call;
mod client;
mod currency;
mod error;
mod money;
pub mod wire;

pub use client::{Builder, NewPayment, PaymentClient, PaymentPages, Source};
pub use currency::{Currency, UnknownCurrency};
pub use error::{Error, Result};
pub use money::{Money, MoneyError};
