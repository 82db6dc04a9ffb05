//! What cannot be wrong once it is made: names, quantities, goods, and how orders go on.
//! Everything here is pure. It must not know HTTP, the store or the payment service.

mod names;
mod order;
mod product;

pub(crate) use names::{NameFault, OrderId, ProductId, UserId, Username, hex, segment};
pub(crate) use order::{Line, Lines, Paid, Status, Step, Turn, after, next_step};
pub(crate) use product::{Product, Texts, check_text};
