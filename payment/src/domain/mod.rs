//! What cards, names and payments are, as pure types.
//! Invariant: a value of a type here cannot be wrong; text becomes one through its only constructor.
//! Nothing here knows keys, requests or clocks.

mod card;
mod name;

pub use card::{Brand, CardFault, CardNumber};
pub(crate) use name::{MerchantName, NameFault, OrderRef, PaymentId, RefundId};
