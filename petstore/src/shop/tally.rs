//! The proof of the shop: everything that is written down, held against everything else.
//! Invariant: each rule is stated once, here; a tally asks nobody and only finds.

use std::collections::BTreeMap;

use payment_client::wire::{Payment, Status as PaymentStatus};

use crate::domain::Status;
use crate::store::{OrderRecord, Post};

/// More would help nobody.
const VIOLATIONS_MAX: usize = 1000;

#[derive(Default)]
pub(crate) struct Tally {
    goods: BTreeMap<String, Goods>,
    /// Booked for a product, less the orders that booked it.
    rooms: BTreeMap<String, i64>,
    /// What is known of the orders of the part that is looked at.
    seen: BTreeMap<Box<str>, Seen>,
    part: Part,
    orders: usize,
    todos: usize,
    violations: Vec<String>,
}

/// One of so many parts of all orders, by what their ids are.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) part: u64,
    pub(crate) parts: u64,
}

impl Default for Part {
    fn default() -> Self {
        Self { part: 0, parts: 1 }
    }
}

impl Part {
    fn has(self, id: &str) -> bool {
        let mix = |mixed: u64, byte| mixed.wrapping_mul(33) ^ u64::from(byte);
        id.bytes().fold(5381, mix) % self.parts == self.part
    }
}

/// All that the rules ask of an order, however long it is.
#[derive(Default)]
struct Seen {
    /// Its state and its total, if there is such an order.
    order: Option<(Status, i64)>,
    has_todo: bool,
    payments: usize,
    is_held: bool,
    captures: usize,
    /// Of the capture, when there is one.
    captured_minor: i64,
    refunded_minor: i64,
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

    /// From now on what belongs to these orders counts.
    pub(crate) fn look_at(&mut self, part: Part) {
        self.part = part;
    }

    pub(crate) fn is_in_part(&self, order: &str) -> bool {
        self.part.has(order)
    }

    fn seen(&mut self, order: &str) -> &mut Seen {
        if !self.seen.contains_key(order) {
            self.seen.insert(order.into(), Seen::default());
        }
        self.seen.get_mut(order).expect("it was put there")
    }

    pub(crate) fn order(&mut self, id: &str, order: &OrderRecord) {
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
        self.orders += 1;
        self.seen(id).order = Some((order.status, order.total_minor));
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
        if self.part.has(id) {
            self.todos += 1;
            self.seen(id).has_todo = true;
        }
    }

    pub(crate) fn payment(&mut self, payment: &Payment) {
        let order = payment.order_ref.as_deref().unwrap_or_default();
        if !self.part.has(order) {
            return;
        }
        let seen = self.seen(order);
        seen.payments += 1;
        seen.is_held |= payment.status == PaymentStatus::Authorized;
        if payment.status == PaymentStatus::Captured {
            seen.captures += 1;
            seen.captured_minor = payment.captured_minor;
            seen.refunded_minor = payment.refunded_minor;
        }
    }

    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    pub(crate) fn orders(&self) -> usize {
        self.orders
    }

    pub(crate) fn todos(&self) -> usize {
        self.todos
    }

    /// Judges the orders of this part, and forgets them.
    pub(crate) fn close_part(&mut self) {
        for (id, seen) in std::mem::take(&mut self.seen) {
            let Some((status, total_minor)) = seen.order else {
                if seen.has_todo {
                    self.violation(format!("order {id}: a todo and no order"));
                }
                if seen.payments > 0 {
                    self.violation(format!("order {id}: no order, but {} payments", seen.payments));
                }
                continue;
            };
            if status.is_ended() == seen.has_todo {
                let todo = if seen.has_todo { "a" } else { "no" };
                self.violation(format!("order {id}: {} with {todo} todo", status.word()));
            }
            if let Some(what) = judge(status, total_minor, &seen) {
                self.violation(format!("order {id}: {} but {what}", status.word()));
            }
        }
    }

    /// Everything that is not as it must be, once all parts are closed.
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
        self.violations
    }
}

/// What does not fit between an order and its payments.
fn judge(status: Status, total: i64, seen: &Seen) -> Option<String> {
    if status.is_ended() && seen.is_held {
        return Some("money is still held for it".to_owned());
    }
    match (status, seen.captures) {
        (Status::Paid | Status::Refunding | Status::Refunded, 1) => {
            let refunds = match status {
                Status::Paid => 0..=0,
                Status::Refunding => 0..=total,
                _ => total..=total,
            };
            if seen.captured_minor != total {
                Some(format!("{} of {total} was taken", seen.captured_minor))
            } else if !refunds.contains(&seen.refunded_minor) {
                Some(format!("{} of {total} was given back", seen.refunded_minor))
            } else {
                None
            }
        }
        (Status::Paid | Status::Refunding | Status::Refunded, many) => {
            Some(format!("{many} payments were taken"))
        }
        // It was taken a moment ago, which is about to be written down; at most once all the same.
        (Status::Authorized, 0 | 1) | (_, 0) => None,
        (_, many) => Some(format!("{many} payments were taken")),
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
        tally.order("o", &order(status));
        if has_todo {
            tally.todo("o");
        }
        for payment in payments {
            tally.payment(payment);
        }
        tally.close_part();
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
        tally.payment(&payment("captured", 1, 0));
        tally.close_part();
        let told = tally.finish().join("; ");
        assert!(
            told.contains("a todo and no order") && told.contains("no order, but 1 payments"),
            "{told}"
        );
    }

    /// In however many parts the orders are looked at: what is found is the same, each thing once.
    #[test]
    fn parts_find_what_the_whole_finds() {
        let found_in = |parts: u64| {
            let mut tally = Tally::default();
            tally.received("1", 200);
            for part in 0..parts {
                tally.look_at(Part { part, parts });
                for n in 0..100 {
                    let id = format!("{n:032x}");
                    if n % 10 != 3 && tally.is_in_part(&id) {
                        tally.order(&id, &order(Status::Paid));
                    }
                    let mut paid = payment("captured", if n % 10 == 7 { 999 } else { 1000 }, 0);
                    paid.order_ref = Some(id);
                    tally.payment(&paid);
                    if n == 13 || n == 14 {
                        tally.todo(&format!("{n:032x}"));
                    }
                }
                tally.close_part();
            }
            assert_eq!((tally.orders(), tally.todos()), (90, 2));
            let mut found = tally.finish();
            found.sort();
            found
        };
        let whole = found_in(1);
        // Ten without an order, ten of a wrong sum, two wrong todos, and twenty pieces that are nowhere.
        assert_eq!(whole.len(), 23, "{whole:?}");
        for parts in [2, 7, 100] {
            assert_eq!(found_in(parts), whole, "{parts}");
        }
    }
}
