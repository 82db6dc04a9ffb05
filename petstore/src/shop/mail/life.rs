//! The life of an order that letters carry on: what it makes of each letter, and whom it writes to then.
//! Invariant: it ends only when everybody it asked has answered, so no piece and no letter is left behind. From the
//! pivot on only forward, as `domain` says. Pure: no clock, no IO.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::domain::{OrderId, Status, Step, Turn, UserId, after};
use crate::shop::checkout::forget_token;
use crate::store::{Actor, Errand, Letter, OrderRecord, Phase, Refusal};

/// An order and the letters it has written since.
#[derive(Clone, Debug)]
pub(super) struct Life {
    user: UserId,
    id: OrderId,
    /// `None` when there is no such order, or no longer.
    pub(super) record: Option<OrderRecord>,
    out: Vec<(Actor, Letter)>,
}

impl Life {
    pub(super) fn new(user: UserId, id: OrderId, record: Option<OrderRecord>) -> Self {
        Self {
            user,
            id,
            record,
            out: Vec::new(),
        }
    }

    fn me(&self) -> Actor {
        Actor::order(&self.user, &self.id)
    }

    fn card(&self) -> Actor {
        Actor::Card {
            user: self.user.to_string(),
            id: self.id.to_string(),
        }
    }

    fn cart(&self) -> Actor {
        Actor::Cart {
            user: self.user.to_string(),
        }
    }

    fn write(&mut self, to: Actor, letter: Letter) {
        self.out.push((to, letter));
    }

    /// What it writes on account of this letter.
    pub(super) fn receive(&mut self, letter: Letter, now_ms: u64) -> Vec<(Actor, Letter)> {
        match self.record.take() {
            Some(record) => {
                let before = record.clone();
                let mut after = self.live(record, letter);
                if let Some(after) = &mut after
                    && *after != before
                {
                    after.changed_ms = now_ms;
                    forget_token(after);
                }
                self.record = after;
            }
            // It ends only when all have answered, so this is a stranger's; the goods are sent back all the same.
            None => {
                if let Letter::Reserved { product, pieces } = letter {
                    let order = self.me();
                    self.write(Actor::inventory(&product), Letter::Release { order, pieces });
                }
            }
        }
        std::mem::take(&mut self.out)
    }

    fn live(&mut self, mut order: OrderRecord, letter: Letter) -> Option<OrderRecord> {
        match letter {
            Letter::Cancel => return Some(self.cancel(order)),
            Letter::TooLate if order.status == Status::Pending => return Some(self.cancel(order)),
            Letter::Paid { step, paid, payment } => return Some(self.paid(order, step, &paid, payment)),
            _ => {}
        }
        let Some(mut errand) = order.errand.take() else {
            return Some(order);
        };
        let gathering = errand.phase == Phase::Gathering;
        match letter {
            Letter::Place if gathering && errand.awaited.is_empty() => {
                self.gather(&order, &mut errand);
            }
            Letter::Reserved { product, pieces } if gathering && errand.awaited.remove(&product) => {
                errand.held.insert(product, pieces);
                return self.gathered(order, errand);
            }
            Letter::Short { product, available } if gathering && errand.awaited.remove(&product) => {
                errand.short.insert(product, available);
                return self.gathered(order, errand);
            }
            Letter::CartTaken if errand.phase == Phase::TakingCart => return Some(self.pay(order, errand)),
            Letter::CartChanged if errand.phase == Phase::TakingCart => {
                errand.phase = Phase::Refusing(cart_changed());
                return self.give_back(order, errand);
            }
            Letter::Released { product } if !gathering => {
                errand.awaited.remove(&product);
                return self.gave_back(order, errand);
            }
            Letter::CartFilled => {
                errand.awaits_cart = false;
                return self.gave_back(order, errand);
            }
            _ => {}
        }
        order.errand = Some(errand);
        Some(order)
    }

    /// All inventories at once: none waits for another, and none is kept from others meanwhile.
    fn gather(&mut self, order: &OrderRecord, errand: &mut Errand) {
        for (product, pieces) in order.quantities() {
            errand.awaited.insert(product.to_owned());
            let order = self.me();
            self.write(Actor::inventory(product), Letter::Reserve { order, pieces });
        }
    }

    fn gathered(&mut self, mut order: OrderRecord, mut errand: Errand) -> Option<OrderRecord> {
        if !errand.awaited.is_empty() {
            order.errand = Some(errand);
            return Some(order);
        }
        if !errand.short.is_empty() {
            errand.phase = Phase::Refusing(out_of_stock(&order, &errand.short));
            return self.give_back(order, errand);
        }
        if order.from_cart && !errand.canceled {
            errand.phase = Phase::TakingCart;
            let (me, cart, revision) = (self.me(), self.cart(), errand.cart_revision);
            self.write(cart, Letter::TakeCart { order: me, revision });
            order.errand = Some(errand);
            return Some(order);
        }
        Some(self.pay(order, errand))
    }

    /// The goods are there: now the money.
    fn pay(&mut self, mut order: OrderRecord, mut errand: Errand) -> OrderRecord {
        if order.payment.is_none() {
            if errand.canceled {
                errand.phase = Phase::Returning(Status::Canceled);
                return self.give_back(order, errand).expect("a canceled order stays");
            }
            order.status = Status::Confirmed;
            return order;
        }
        if errand.canceled {
            order.status = Status::Canceling;
        }
        errand.phase = Phase::Paying;
        order.errand = Some(errand);
        self.ask(&order);
        order
    }

    /// Asks for the step that the order's state calls for.
    fn ask(&mut self, order: &OrderRecord) {
        let step = match order.status {
            Status::Pending => Step::Authorize,
            Status::Authorized => Step::Capture,
            Status::Canceling => Step::CancelPayment,
            Status::Refunding => Step::Refund,
            _ => return,
        };
        let Some(payment) = order.payment.clone() else {
            return;
        };
        let letter = Letter::Pay {
            step,
            payment,
            total_minor: order.total_minor,
            currency: order.currency.clone(),
        };
        self.write(self.card(), letter);
    }

    fn cancel(&mut self, mut order: OrderRecord) -> OrderRecord {
        match (order.status, &mut order.errand) {
            (Status::Pending, Some(errand)) if errand.phase == Phase::Paying => {
                order.status = Status::Canceling;
                self.ask(&order);
            }
            (Status::Pending, Some(errand)) => errand.canceled = true,
            (Status::Paid, None) => {
                let held = order.quantities().into_iter();
                let held = held
                    .map(|(product, pieces)| (product.to_owned(), pieces))
                    .collect();
                order.status = Status::Refunding;
                order.errand = Some(Errand {
                    held,
                    ..Errand::new(Phase::Paying)
                });
                self.ask(&order);
            }
            // Past the pivot, or ended: whoever cancels reads that from the state.
            _ => {}
        }
        order
    }

    fn paid(
        &mut self,
        mut order: OrderRecord,
        step: Step,
        paid: &crate::domain::Paid,
        payment: Option<crate::store::PaymentOf>,
    ) -> OrderRecord {
        let expected = match order.status {
            Status::Pending => Step::Authorize,
            Status::Authorized => Step::Capture,
            Status::Canceling => Step::CancelPayment,
            Status::Refunding => Step::Refund,
            _ => Step::Nothing,
        };
        let paying = order
            .errand
            .as_ref()
            .is_some_and(|errand| errand.phase == Phase::Paying);
        // An answer to what was asked before a cancel came: the cancel's own answer settles it.
        if step != expected || !paying {
            return order;
        }
        if let Some(payment) = payment {
            order.payment = Some(payment);
        }
        let ending = match after(step, paid) {
            Turn::Again => return order,
            Turn::Becomes(status @ (Status::Canceled | Status::Refunded)) => status,
            Turn::Becomes(Status::Paid) => {
                order.status = Status::Paid;
                order.errand = None;
                return order;
            }
            Turn::Becomes(status) => {
                order.status = status;
                self.ask(&order);
                return order;
            }
            Turn::Fails(code) => {
                order.decline = Some(code);
                Status::PaymentFailed
            }
        };
        let mut errand = order.errand.take().expect("it is paying");
        errand.phase = Phase::Returning(ending);
        self.give_back(order, errand)
            .expect("an order that was there stays")
    }

    fn give_back(&mut self, order: OrderRecord, mut errand: Errand) -> Option<OrderRecord> {
        for (product, pieces) in std::mem::take(&mut errand.held) {
            let letter = Letter::Release {
                order: self.me(),
                pieces,
            };
            self.write(Actor::inventory(&product), letter);
            errand.awaited.insert(product);
        }
        if errand.phase == Phase::Returning(Status::PaymentFailed) && order.from_cart {
            errand.awaits_cart = true;
            let lines = order.lines.iter();
            let items = lines.map(|line| (line.product.clone(), line.quantity)).collect();
            let letter = Letter::FillCart {
                order: self.me(),
                items,
            };
            self.write(self.cart(), letter);
        }
        self.gave_back(order, errand)
    }

    fn gave_back(&mut self, mut order: OrderRecord, errand: Errand) -> Option<OrderRecord> {
        let done = errand.awaited.is_empty() && !errand.awaits_cart;
        match errand.phase {
            Phase::Returning(status) if done => order.status = status,
            Phase::Refusing(refusal) if done => {
                self.write(Actor::notify(&self.user, &self.id), Letter::Refused(refusal));
                return None;
            }
            _ => order.errand = Some(errand),
        }
        Some(order)
    }
}

fn cart_changed() -> Refusal {
    Refusal {
        code: "cart-changed".to_owned(),
        detail: "The cart was changed while it was being ordered.".to_owned(),
        extra: Map::new(),
        at_ms: 0,
    }
}

/// Names the lines of which there was not enough.
fn out_of_stock(order: &OrderRecord, short: &BTreeMap<String, i64>) -> Refusal {
    let lines = order.lines.iter().filter_map(|line| {
        let available = short.get(&line.product)?;
        Some(json!({
            "productId": line.product,
            "name": line.name,
            "quantity": line.quantity,
            "available": available,
        }))
    });
    let mut extra = Map::new();
    extra.insert("lines".to_owned(), Value::Array(lines.collect()));
    Refusal {
        code: "out-of-stock".to_owned(),
        detail: "There is not enough of something in the order.".to_owned(),
        extra,
        at_ms: 0,
    }
}
