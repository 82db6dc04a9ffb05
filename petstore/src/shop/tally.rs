//! The proof of the shop: everything that is written down, held against everything else.
//! Invariant: each rule is stated once, here; a tally asks nobody and only finds.

use std::collections::{BTreeMap, BTreeSet};

use payment_client::wire::{Payment, Status as PaymentStatus};

use crate::domain::Status;
use crate::store::{OrderRecord, Post};

/// More would help nobody.
const VIOLATIONS_MAX: usize = 1000;

#[derive(Default)]
pub(crate) struct Tally {
    goods: BTreeMap<String, Goods>,
    orders: BTreeMap<String, OrderRecord>,
    todos: BTreeSet<String>,
    /// Booked for a product, less the orders that booked it.
    rooms: BTreeMap<String, i64>,
    payments: BTreeMap<String, Vec<Payment>>,
    violations: Vec<String>,
}

/// Where the pieces of a product are.
#[derive(Clone, Copy, Debug, Default)]
struct Goods {
    received: i64,
    stock: i64,
    reserved: i64,
    sold: i64,
}

impl Tally {
    pub(crate) fn stock(&mut self, product: &str, stock: i64) {
        self.goods.entry(product.to_owned()).or_default().stock = stock;
    }

    pub(crate) fn received(&mut self, product: &str, received: i64) {
        self.goods.entry(product.to_owned()).or_default().received = received;
    }

    pub(crate) fn order(&mut self, id: &str, order: OrderRecord) {
        for (product, pieces) in order.taken() {
            let goods = self.goods.entry(product.to_owned()).or_default();
            if order.status.sells() {
                goods.sold += pieces;
            } else {
                goods.reserved += pieces;
            }
        }
        if order.errand.is_some() {
            for product in order.quantities().into_keys() {
                *self.rooms.entry(product.to_owned()).or_default() -= 1;
            }
        }
        self.orders.insert(id.to_owned(), order);
    }

    /// A letter on its way, or laid aside, may stand for pieces that are on no shelf and in no order.
    pub(crate) fn letter(&mut self, key: &str, value: &[u8]) {
        let Ok(post) = serde_json::from_slice::<Post>(value) else {
            return self.violation(format!("letter {key}: it cannot be read"));
        };
        if let Some((product, pieces)) = post.pieces() {
            self.goods.entry(product.to_owned()).or_default().reserved += pieces;
        }
    }

    /// How many unfinished orders are said to name a product.
    pub(crate) fn room(&mut self, product: &str, booked: i64) {
        *self.rooms.entry(product.to_owned()).or_default() += booked;
    }

    pub(crate) fn todo(&mut self, id: &str) {
        self.todos.insert(id.to_owned());
    }

    pub(crate) fn payment(&mut self, payment: Payment) {
        let order = payment.order_ref.clone().unwrap_or_default();
        self.payments.entry(order).or_default().push(payment);
    }

    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    pub(crate) fn orders(&self) -> usize {
        self.orders.len()
    }

    pub(crate) fn todos(&self) -> usize {
        self.todos.len()
    }

    /// Everything that is not as it must be.
    pub(crate) fn finish(mut self) -> Vec<String> {
        for (product, goods) in std::mem::take(&mut self.goods) {
            if goods.stock < 0 {
                self.violation(format!("product {product}: the stock is {}", goods.stock));
            }
            if goods.received != goods.stock + goods.reserved + goods.sold {
                self.violation(format!(
                    "product {product}: {} received, but {} in stock, {} reserved and {} sold",
                    goods.received, goods.stock, goods.reserved, goods.sold
                ));
            }
        }
        for (product, booked) in std::mem::take(&mut self.rooms) {
            if booked != 0 {
                self.violation(format!(
                    "product {product}: room is booked for {booked} orders more than there are"
                ));
            }
        }
        let (orders, todos) = (std::mem::take(&mut self.orders), std::mem::take(&mut self.todos));
        let mut payments = std::mem::take(&mut self.payments);
        for (id, order) in &orders {
            if order.status.is_ended() == todos.contains(id) {
                let todo = if todos.contains(id) { "a" } else { "no" };
                self.violation(format!("order {id}: {} with {todo} todo", order.status.word()));
            }
            let payments = payments.remove(id).unwrap_or_default();
            if let Some(what) = judge(order, &payments) {
                self.violation(format!("order {id}: {} but {what}", order.status.word()));
            }
        }
        for id in todos.iter().filter(|id| !orders.contains_key(*id)) {
            self.violation(format!("order {id}: a todo and no order"));
        }
        for (id, payments) in payments {
            let ids: Vec<&str> = payments.iter().map(|payment| payment.id.as_str()).collect();
            self.violation(format!("order {id}: no order, but payments {}", ids.join(", ")));
        }
        self.violations
    }
}

/// What does not fit between an order and its payments.
fn judge(order: &OrderRecord, payments: &[Payment]) -> Option<String> {
    let captured: Vec<&Payment> = payments
        .iter()
        .filter(|payment| payment.status == PaymentStatus::Captured)
        .collect();
    let held = payments
        .iter()
        .any(|payment| payment.status == PaymentStatus::Authorized);
    if order.status.is_ended() && held {
        return Some("money is still held for it".to_owned());
    }
    let total = order.total_minor;
    match (order.status, captured.as_slice()) {
        (Status::Paid | Status::Refunding | Status::Refunded, [paid]) => {
            let refunds = match order.status {
                Status::Paid => 0..=0,
                Status::Refunding => 0..=total,
                _ => total..=total,
            };
            if paid.captured_minor != total {
                Some(format!("{} of {total} was taken", paid.captured_minor))
            } else if !refunds.contains(&paid.refunded_minor) {
                Some(format!("{} of {total} was given back", paid.refunded_minor))
            } else {
                None
            }
        }
        (Status::Paid | Status::Refunding | Status::Refunded, many) => {
            Some(format!("{} payments were taken", many.len()))
        }
        // It was taken a moment ago, which is about to be written down; at most once all the same.
        (Status::Authorized, [] | [_]) | (_, []) => None,
        (_, many) => Some(format!("{} payments were taken", many.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Line;

    fn order(status: Status) -> OrderRecord {
        OrderRecord {
            status,
            created_ms: 1,
            changed_ms: 1,
            lines: vec![Line {
                product: "1".to_owned(),
                name: String::new(),
                species: String::new(),
                unit_minor: 500,
                quantity: 2,
            }],
            total_minor: 1000,
            currency: "EUR".to_owned(),
            from_cart: false,
            payment: None,
            decline: None,
            errand: None,
        }
    }

    fn payment(status: &str, captured: i64, refunded: i64) -> Payment {
        serde_json::from_value(serde_json::json!({"id": "p", "status": status, "order_ref": "o",
            "captured_minor": captured, "refunded_minor": refunded, "created": ""}))
        .unwrap()
    }

    fn found(status: Status, payments: &[Payment], stock: i64, has_todo: bool) -> Vec<String> {
        let mut tally = Tally::default();
        tally.received("1", 10);
        tally.stock("1", stock);
        tally.order("o", order(status));
        if has_todo {
            tally.todo("o");
        }
        for payment in payments {
            tally.payment(payment.clone());
        }
        tally.finish()
    }

    #[test]
    fn sound_shops_are_sound() {
        let paid = payment("captured", 1000, 0);
        assert!(found(Status::Paid, std::slice::from_ref(&paid), 8, false).is_empty());
        assert!(found(Status::Pending, &[], 8, true).is_empty());
        assert!(found(Status::Authorized, &[paid], 8, true).is_empty());
        assert!(found(Status::Canceled, &[payment("canceled", 0, 0)], 10, false).is_empty());
        assert!(found(Status::PaymentFailed, &[payment("declined", 0, 0)], 10, false).is_empty());
        assert!(found(Status::Refunded, &[payment("captured", 1000, 1000)], 10, false).is_empty());
        assert!(found(Status::Confirmed, &[], 8, false).is_empty());
    }

    /// Each way to be wrong is seen by the rule that is meant for it.
    #[test]
    fn each_violation_is_found() {
        let (paid, held) = (payment("captured", 1000, 0), payment("authorized", 0, 0));
        let cases = [
            (Status::Paid, vec![], 8, false, "0 payments were taken"),
            (
                Status::Paid,
                vec![paid.clone(), paid.clone()],
                8,
                false,
                "2 payments were taken",
            ),
            (
                Status::Paid,
                vec![payment("captured", 999, 0)],
                8,
                false,
                "999 of 1000",
            ),
            (
                Status::Paid,
                vec![payment("captured", 1000, 1)],
                8,
                false,
                "1 of 1000",
            ),
            (Status::Paid, vec![paid.clone()], 9, false, "10 received"),
            (Status::Paid, vec![paid.clone()], 8, true, "with a todo"),
            (Status::Pending, vec![], 8, false, "with no todo"),
            (
                Status::Pending,
                vec![paid.clone()],
                8,
                true,
                "1 payments were taken",
            ),
            (Status::Canceled, vec![paid], 10, false, "1 payments were taken"),
            (Status::Canceled, vec![held], 10, false, "still held"),
            (
                Status::Refunded,
                vec![payment("captured", 1000, 0)],
                10,
                false,
                "0 of 1000 was given back",
            ),
            (Status::Confirmed, vec![], -1, false, "the stock is -1"),
        ];
        for (status, payments, stock, todo, wanted) in cases {
            let told = found(status, &payments, stock, todo).join("; ");
            assert!(
                told.contains(wanted),
                "{status:?}: {told:?} does not tell {wanted:?}"
            );
        }
        let mut tally = Tally::default();
        tally.todo("lost");
        tally.payment(payment("captured", 1, 0));
        let told = tally.finish().join("; ");
        assert!(
            told.contains("a todo and no order") && told.contains("no order, but payments p"),
            "{told}"
        );
    }
}
