//! What each kind of actor does with its letters. Each function is one step: it reads, decides, and commits once.
//! Invariant: whatever is decided hangs on the revisions of what it was decided from. Calls to the payment service come
//! before the commit and may come again, since a payment's name makes it once.

use kvstore_client::Txn;
use kvstore_client::wire::txn::{Condition, Op};
use service::config::TXN_OPS_MIN;
use service::problem::Result;
use service::time::now_ms;

use super::actor::{Runner, State, Stepped, misplaced};
use super::life::Life;
use super::wait::News;
use super::{BY_MAIL, Item};
use crate::domain::{Line, OrderId, Paid, Status, Step, UserId};
use crate::shop::checkout::{Bill, Found};
use crate::shop::{LINES_MAX, OF_AN_ORDER, QUANTITY_MAX};
use crate::store::{
    Actor, CartRecord, GoodsPart, Keys, Letter, OrderRecord, Phase, TodoRecord, inconsistent, read, read_int,
    write,
};

/// So many letters of one mailbox in one step: together with what they bring about they fit into a transaction.
const ORDER_BATCH: usize = 16;
const INVENTORY_BATCH: usize = 48;
const _: () = assert!(ORDER_BATCH + LINES_MAX + OF_AN_ORDER <= TXN_OPS_MIN);
// Each is taken and answered, and the stock is written.
const _: () = assert!(2 * INVENTORY_BATCH < TXN_OPS_MIN);
/// How long it is told why there is no order.
const NOTICE_MS: u64 = 900_000;

fn parsed(user: &str, id: &str) -> Result<(UserId, OrderId)> {
    let user = UserId::stored(user).map_err(|_fault| inconsistent("a letter names no possible user"))?;
    let id = OrderId::parse(id).ok_or_else(|| inconsistent("a letter names no possible order"))?;
    Ok((user, id))
}

impl Runner {
    pub(super) async fn act_as_order(&mut self, user: &str, id: &str) -> Result<Stepped> {
        let (user, id) = parsed(user, id)?;
        let keys = self.shop.store.keys.clone();
        let key = keys.order(&user, &id);
        let (before, revision) = match self.state.take() {
            Some(State::Order(record, revision)) => (record.map(|record| *record), revision),
            _ => self.read(&key, read::<OrderRecord>).await?,
        };
        let mut life = Life::new(user.clone(), id.clone(), before.clone());
        let mut txn = Txn::new().when(Condition::unchanged(&key, revision));
        let (mut taken, mut passed) = (Vec::new(), Vec::new());
        for item in self.due(ORDER_BATCH) {
            let was = life.record.as_ref().map(|record| record.status);
            if item.post.letter == Letter::Place {
                passed.push("placed");
            }
            let letters = life.receive(item.post.letter.clone(), now_ms());
            let is = life.record.as_ref().map(|record| record.status);
            passed.extend(is.filter(|_| is != was).map(Status::word));
            let last = !letters.is_empty();
            for (nth, (to, letter)) in letters.into_iter().enumerate() {
                txn = txn.then(item.answer(&keys, nth, to, letter));
            }
            taken.push(item);
            if last {
                break;
            }
        }
        let after = life.record;
        txn = moved(txn, &keys, (&user, &id), before.as_ref(), after.as_ref());
        let Some(committed) = self.commit(&taken, txn).await? else {
            return Ok(Stepped::Changed);
        };
        let revision = match (&before, &after) {
            (before, after) if before == after => revision,
            (_, Some(_)) => committed,
            (_, None) => 0,
        };
        self.state = Some(State::Order(after.clone().map(Box::new), revision));
        for point in passed {
            self.shop.points.reach(point).await;
        }
        if let Some(record) = after {
            self.tell_of(
                before.as_ref(),
                Found {
                    user,
                    id,
                    record,
                    revision,
                },
            );
        }
        Ok(Stepped::Done)
    }

    fn tell_of(&self, before: Option<&OrderRecord>, found: Found) {
        let ended = found.record.status.is_ended();
        if ended && before.is_some_and(|before| !before.status.is_ended()) {
            let word = found.record.status.word();
            self.shop.counted.with_label_values(&[word]).inc();
        }
        let reserved = found
            .record
            .errand
            .as_ref()
            .is_none_or(|errand| errand.phase == Phase::Paying);
        if ended {
            self.shop.office.tell(News::Ended(found));
        } else if reserved {
            self.shop.office.tell(News::Reserved(found));
        }
    }

    pub(super) async fn act_as_inventory(&mut self, product: &str) -> Result<Stepped> {
        let keys = self.shop.store.keys.clone();
        let key = keys.goods_part(product, GoodsPart::Stock);
        let (before, revision) = if let Some(State::Stock(stock, revision)) = self.state.take() {
            (stock, revision)
        } else {
            let (stock, revision) = self.read(&key, read_int).await?;
            (stock.unwrap_or(0), revision)
        };
        let (mut stock, mut txn) = (before, Txn::new().when(Condition::unchanged(&key, revision)));
        let mut taken: Vec<Item> = Vec::new();
        for item in self.due(INVENTORY_BATCH) {
            let (to, letter) = match shelve(&mut stock, product, &item.post.letter) {
                Some(answer) => answer,
                None if taken.is_empty() => return Err(misplaced(&self.actor)),
                None => break,
            };
            txn = txn.then(item.answer(&keys, 0, to, letter));
            taken.push(item);
        }
        if stock != before {
            txn = txn.then(Op::put(&key, stock.to_string()));
        }
        let Some(committed) = self.commit(&taken, txn).await? else {
            return Ok(Stepped::Changed);
        };
        let revision = if stock == before { revision } else { committed };
        self.state = Some(State::Stock(stock, revision));
        Ok(Stepped::Done)
    }

    pub(super) async fn act_as_card(&mut self, user: &str, id: &str) -> Result<Stepped> {
        let (user, id) = parsed(user, id)?;
        let mut items = self.due(ORDER_BATCH);
        // What is to be canceled need not be authorized first.
        let asks = |item: &Item, wanted: Step| matches!(item.post.letter, Letter::Pay { step, .. } if step == wanted);
        let at = items
            .iter()
            .position(|item| asks(item, Step::CancelPayment))
            .unwrap_or(0);
        if !items[..at].iter().all(|item| asks(item, Step::Authorize)) {
            return Err(misplaced(&self.actor));
        }
        items.truncate(at + 1);
        let Some(item) = items.get(at).cloned() else {
            return Ok(Stepped::Done);
        };
        let Letter::Pay {
            step,
            payment,
            total_minor,
            currency,
        } = &item.post.letter
        else {
            return Err(misplaced(&self.actor));
        };
        let bill = Bill {
            order: &id,
            payment: Some(payment),
            total_minor: *total_minor,
            currency,
        };
        let (paid, payment) = self.shop.ask(&bill, *step).await;
        let letter = match paid {
            Paid::Unknown => return Ok(Stepped::Later),
            Paid::Odd => {
                return Ok(Stepped::Failed(
                    "the payment service gave an answer that does not fit".to_owned(),
                ));
            }
            paid => Letter::Paid {
                step: *step,
                paid,
                payment,
            },
        };
        let txn = Txn::new().then(item.answer(&self.shop.store.keys, 0, Actor::order(&user, &id), letter));
        Ok(match self.commit(&items, txn).await? {
            Some(_) => Stepped::Done,
            None => Stepped::Changed,
        })
    }

    pub(super) async fn act_as_cart(&mut self, user: &str) -> Result<Stepped> {
        let keys = self.shop.store.keys.clone();
        let owner = UserId::stored(user).map_err(|_fault| inconsistent("a letter names no possible user"))?;
        let key = keys.cart(&owner);
        let (mut cart, revision) = if let Some(State::Cart(cart, revision)) = self.state.take() {
            (cart, revision)
        } else {
            let (cart, revision) = self.read(&key, read::<CartRecord>).await?;
            (cart.unwrap_or_default(), revision)
        };
        let txn = Txn::new().when(Condition::unchanged(&key, revision));
        let Some(item) = self.due(1).pop() else {
            return Ok(Stepped::Done);
        };
        let (txn, order, letter) = match &item.post.letter {
            Letter::TakeCart {
                order,
                revision: seen,
            } if *seen == revision => {
                cart = CartRecord::default();
                (txn.then(Op::delete(&key)), order, Letter::CartTaken)
            }
            Letter::TakeCart { order, .. } => (txn, order, Letter::CartChanged),
            Letter::FillCart { order, items } => {
                cart.merge(&items.iter().map(line).collect::<Vec<_>>(), QUANTITY_MAX);
                (txn.then(Op::put(&key, write(&cart))), order, Letter::CartFilled)
            }
            _ => return Err(misplaced(&self.actor)),
        };
        let (changed, gone) = (letter != Letter::CartChanged, letter == Letter::CartTaken);
        let txn = txn.then(item.answer(&keys, 0, order.clone(), letter));
        let Some(committed) = self.commit(&[item], txn).await? else {
            return Ok(Stepped::Changed);
        };
        let revision = match (changed, gone) {
            (_, true) => 0,
            (true, _) => committed,
            (false, _) => revision,
        };
        self.state = Some(State::Cart(cart, revision));
        Ok(Stepped::Done)
    }

    pub(super) async fn act_as_notify(&mut self, user: &str, id: &str) -> Result<Stepped> {
        let (user, id) = parsed(user, id)?;
        let Some(item) = self.due(1).pop() else {
            return Ok(Stepped::Done);
        };
        let Letter::Refused(refusal) = item.post.letter.clone() else {
            return Err(misplaced(&self.actor));
        };
        let keys = &self.shop.store.keys;
        let refusal = crate::store::Refusal {
            at_ms: now_ms(),
            ..refusal
        };
        let txn = Txn::new()
            .then(Op::put(&keys.notice(&user, &id), write(&refusal)))
            .then(Op::put(
                &keys.due_notice(refusal.at_ms + NOTICE_MS, &user, &id),
                "",
            ));
        if self.commit(&[item], txn).await?.is_none() {
            return Ok(Stepped::Changed);
        }
        self.shop.office.tell(News::Refused(id, refusal));
        Ok(Stepped::Done)
    }
}

/// What an inventory answers; `None` to what is no letter for it.
pub(super) fn shelve(stock: &mut i64, product: &str, letter: &Letter) -> Option<(Actor, Letter)> {
    let product = product.to_owned();
    match letter {
        Letter::Reserve { order, pieces } if *pieces <= *stock => {
            *stock -= pieces;
            let pieces = *pieces;
            Some((order.clone(), Letter::Reserved { product, pieces }))
        }
        Letter::Reserve { order, .. } => {
            let available = *stock;
            Some((order.clone(), Letter::Short { product, available }))
        }
        Letter::Release { order, pieces } => {
            *stock = stock.checked_add(*pieces)?;
            Some((order.clone(), Letter::Released { product }))
        }
        _ => None,
    }
}

fn line((product, quantity): &(String, i64)) -> Line {
    Line {
        product: product.clone(),
        name: String::new(),
        species: String::new(),
        unit_minor: 0,
        quantity: *quantity,
    }
}

/// Writes an order's next state, and what begins and ends with it.
fn moved(
    mut txn: Txn,
    keys: &Keys,
    (user, id): (&UserId, &OrderId),
    before: Option<&OrderRecord>,
    after: Option<&OrderRecord>,
) -> Txn {
    if before == after {
        return txn;
    }
    let key = keys.order(user, id);
    txn = match after {
        Some(record) => txn.then(Op::put(&key, write(record))),
        None => txn.then(Op::delete(&key)),
    };
    let open = |record: Option<&OrderRecord>| record.is_some_and(|record| !record.status.is_ended());
    let Some(record) = before.or(after) else {
        return txn;
    };
    let booked = match (open(before), open(after)) {
        (true, false) => {
            txn = txn.then(Op::delete(&keys.todo(id)));
            if let Some(errand) = before.and_then(|before| before.errand.as_ref()) {
                let gone = (!errand.timer.is_empty()).then_some(&errand.timer).into_iter();
                let answers = errand.answers.iter().filter(|_| after.is_none());
                for key in gone.chain(answers) {
                    txn = txn.then(Op::delete(key));
                }
            }
            -1
        }
        (false, true) => {
            let todo = TodoRecord {
                user: user.to_string(),
                owner: BY_MAIL.to_owned(),
            };
            txn = txn.then(Op::put(&keys.todo(id), write(&todo)));
            1
        }
        _ => return txn,
    };
    for product in record.quantities().into_keys() {
        txn = txn.then(Op::add(&keys.room(product), booked, None, None));
    }
    txn
}
