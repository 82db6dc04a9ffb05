//! Placing an order: one transaction that writes the order with the prices of this moment, takes the goods off the
//! shelves, empties the cart, keeps the answer and says what is to be done.
//! Invariant: stock is taken by bounded adds, so many who want the same product do not make each other try again; a
//! second try is needed only if a product itself was edited in between.

use std::sync::Arc;

use kvstore_client::wire::txn::{Branch, Condition, Op, TxnAnswer};
use kvstore_client::{Freshness, Txn};
use payment_client::Money;
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::lines::{check_count, lines, out_of_stock, total};
use super::{Carrying, Found, Wanted, Wish};
use crate::domain::{OrderId, Status, UserId};
use crate::shop::carts::FoundCart;
use crate::shop::mail::BY_MAIL;
use crate::shop::{Shelf, Shop};
use crate::store::{
    Actor, Errand, GoodsPart, Kept, Letter, OrderRecord, PaymentOf, Phase, Post, Store, TodoRecord,
    inconsistent, write,
};

const TRIES_MAX: usize = 8;
/// Of names for an order, until one is of a shard of ours. It matters little if none is.
const DRAWS_MAX: usize = 256;

pub(crate) enum Placed {
    Here(Box<Found>),
    /// The same request made it before.
    Before(UserId, OrderId),
}

/// One try at placing an order, with everything that it found.
struct Draft<'wish> {
    wish: &'wish Wish,
    id: &'wish OrderId,
    record: OrderRecord,
    shelf: Arc<Shelf>,
    cart: Option<FoundCart>,
}

fn before(kept: Kept) -> Result<Placed> {
    let (user, id) = ordered(kept)?;
    Ok(Placed::Before(user, id))
}

/// The order that a kept answer is about.
pub(super) fn ordered(kept: Kept) -> Result<(UserId, OrderId)> {
    let (user, id) = kept
        .order
        .ok_or_else(|| inconsistent("the answer to an order names no order"))?;
    let user = UserId::stored(&user).map_err(|_fault| inconsistent("an answer names no possible user"))?;
    let id = OrderId::parse(&id).ok_or_else(|| inconsistent("an answer names no possible order"))?;
    Ok((user, id))
}

impl Shop {
    pub(super) async fn place(&self, wish: Wish) -> Result<(Placed, Option<Carrying>)> {
        let once = wish.once.clone();
        let replay = |kept| Ok((before(kept)?, None));
        let work = Box::pin(self.try_to_place(wish));
        self.once(once.as_ref(), replay, work).await
    }

    async fn try_to_place(&self, wish: Wish) -> Result<(Placed, Option<Carrying>)> {
        let payment = match &wish.card {
            Some(card) => Some(self.tokenize(card).await?),
            None => None,
        };
        self.points.reach("tokenized").await;
        let id = self.new_order_id();
        let carrying = if self.is_by_mail() { None } else { self.carry(&id) };
        let mut freshness = Freshness::Cached;
        let mut total_seen = wish.total_minor;
        for _ in 0..TRIES_MAX {
            let draft = match self.draft(&wish, &id, payment.as_ref(), freshness).await {
                // What memory does not know may have come a moment ago.
                Err(_) if freshness == Freshness::Cached => {
                    freshness = Freshness::Linearizable;
                    continue;
                }
                draft => draft?,
            };
            let total_minor = draft.record.total_minor;
            if total_seen.is_some_and(|seen| seen != total_minor) {
                if freshness == Freshness::Cached {
                    freshness = Freshness::Linearizable;
                    continue;
                }
                return Err(price_changed(total_minor));
            }
            let (txn, draft) = if self.is_by_mail() {
                self.post_txn(draft)
            } else {
                (self.place_txn(&draft), draft)
            };
            let answer = self.store.commit(txn).await?;
            if !self.is_by_mail() {
                self.points.reach("placed").await;
            }
            match answer.branch {
                Branch::Failed if self.is_by_mail() => return Err(mailbox_full()),
                Branch::Then => return Ok((Placed::Here(Box::new(draft.found(answer.revision))), carrying)),
                Branch::Failed => return Err(out_of_stock(&draft.record.lines, &answer)?),
                Branch::Else => {}
            }
            if let Some(kept) = Store::replay_of(wish.once.as_ref(), answer.got(1))? {
                return Ok((before(kept)?, None));
            }
            if draft
                .cart
                .is_some_and(|cart| cart_revision(&answer) != cart.revision)
            {
                return Err(Problem::new(
                    problem::CART_CHANGED,
                    "The cart was changed while it was being ordered.",
                ));
            }
            // A product was edited since it was read. What was read linearizably may have been seen as well.
            if freshness == Freshness::Linearizable {
                total_seen = Some(total_minor);
            }
            freshness = Freshness::Linearizable;
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "What was ordered is being edited all the time. Nothing was ordered.",
        ))
    }

    async fn draft<'wish>(
        &self,
        wish: &'wish Wish,
        id: &'wish OrderId,
        payment: Option<&PaymentOf>,
        freshness: Freshness,
    ) -> Result<Draft<'wish>> {
        let (cart, shelf) = match &wish.wanted {
            Wanted::Cart => {
                let (cart, shelf) =
                    tokio::join!(self.found_cart(&wish.user), self.catalogue.shelf(freshness));
                (Some(cart?), shelf?)
            }
            Wanted::Items(_) => (None, self.catalogue.shelf(freshness).await?),
        };
        let items = match (&wish.wanted, &cart) {
            (Wanted::Items(items), _) => items,
            (Wanted::Cart, Some(cart)) => &cart.record.items,
            (Wanted::Cart, None) => unreachable!("the cart was read"),
        };
        check_count(items)?;
        let lines = lines(items, &shelf, cart.as_ref().map(|cart| &cart.record))?;
        // What is only confirmed is not paid, so only what can be counted bounds it.
        let total_max = payment.map_or(Money::MINOR_MAX, |_| self.amount_minor_max);
        let total_minor = total(&lines, total_max)?;
        let now_ms = now_ms();
        let record = OrderRecord {
            status: if payment.is_some() || self.is_by_mail() {
                Status::Pending
            } else {
                Status::Confirmed
            },
            created_ms: now_ms,
            changed_ms: now_ms,
            lines,
            total_minor,
            currency: self.currency.code().to_owned(),
            from_cart: cart.is_some(),
            payment: payment.map(|payment| PaymentOf {
                id: self.payment_id(id),
                ..payment.clone()
            }),
            decline: None,
            errand: None,
        };
        Ok(Draft {
            wish,
            id,
            record,
            shelf,
            cart,
        })
    }

    fn place_txn(&self, draft: &Draft<'_>) -> Txn {
        let (store, keys) = (&self.store, &self.store.keys);
        let (user, once) = (&draft.wish.user, draft.wish.once.as_ref());
        let cart_key = keys.cart(user);
        // The cart is read first and the answer second, where there is one.
        let mut txn = Txn::new().otherwise(Op::get(&cart_key));
        if let Some(cart) = &draft.cart {
            txn = txn
                .when(Condition::unchanged(&cart_key, cart.revision))
                .then(Op::delete(&cart_key));
        }
        for line in &draft.record.lines {
            let stock_key = keys.goods_part(&line.product, GoodsPart::Stock);
            let record_key = keys.goods_part(&line.product, GoodsPart::Record);
            let known = draft
                .shelf
                .get(&line.product)
                .map_or(0, |good| good.product_revision);
            txn = txn
                .when(Condition::unchanged(&record_key, known))
                .then(Op::add(&stock_key, -line.quantity, Some(0), None))
                .failed(Op::get(&stock_key));
        }
        txn = txn.then(Op::put(&keys.order(user, draft.id), write(&draft.record)));
        if !draft.record.status.is_ended() {
            let todo = TodoRecord {
                user: user.to_string(),
                owner: self.instance.clone(),
            };
            txn = txn.then(Op::put(&keys.todo(draft.id), write(&todo)));
        }
        let kept = Kept::of_order(user.as_str(), draft.id.as_str());
        store.guard(store.keep(txn, once, &kept), once)
    }
}

impl Shop {
    /// By letters: an order of a shard of our own is answered from our own memory.
    fn new_order_id(&self) -> OrderId {
        let mut id = OrderId::new(now_ms());
        if self.is_by_mail() {
            for _ in 0..DRAWS_MAX {
                if self.office.is_mine(id.shard()) {
                    break;
                }
                id = OrderId::new(now_ms());
            }
        }
        id
    }

    /// Writes the order down, without its goods yet, and the letter that begins it. Room for what follows is booked
    /// in the mailboxes of its products, so that none ever grows without bound.
    fn post_txn<'wish>(&self, mut draft: Draft<'wish>) -> (Txn, Draft<'wish>) {
        let (store, keys) = (&self.store, &self.store.keys);
        let (user, once) = (&draft.wish.user, draft.wish.once.as_ref());
        let timer_ms = draft.record.created_ms + self.config.order_pending_s * 1000;
        let kept = Kept::of_order(user.as_str(), draft.id.as_str());
        let txn = Txn::new().otherwise(Op::get(&keys.cart(user)));
        let (mut txn, answers) = store.keep_until(txn, once, &kept, now_ms() + store.answer_ms());
        let errand = Errand {
            cart_revision: draft.cart.as_ref().map_or(0, |cart| cart.revision),
            timer: keys.timer(timer_ms, draft.id),
            answers,
            ..Errand::new(Phase::Gathering)
        };
        let room_max = i64::try_from(self.config.mailbox_max).unwrap_or(i64::MAX);
        for line in &draft.record.lines {
            let record_key = keys.goods_part(&line.product, GoodsPart::Record);
            let known = draft.shelf.get(&line.product);
            txn = txn
                .when(Condition::unchanged(
                    &record_key,
                    known.map_or(0, |good| good.product_revision),
                ))
                .then(Op::add(&keys.room(&line.product), 1, None, Some(room_max)))
                .failed(Op::get(&record_key));
        }
        let order = Actor::order(user, draft.id);
        let todo = TodoRecord {
            user: user.to_string(),
            owner: BY_MAIL.to_owned(),
        };
        let late = Post::new(order.clone(), Letter::TooLate);
        txn = txn
            .then(Op::put(&errand.timer, write(&late)))
            .then(Op::put(&keys.todo(draft.id), write(&todo)))
            .then(Op::put(
                &keys.letter(&order, "place"),
                write(&Post::new(order, Letter::Place)),
            ));
        draft.record.errand = Some(errand);
        txn = txn.then(Op::put(&keys.order(user, draft.id), write(&draft.record)));
        (store.guard(txn, once), draft)
    }
}

fn mailbox_full() -> Problem {
    Problem::new(
        problem::OVERLOADED,
        "So many orders for one of these products are under way that no more are taken. Nothing was ordered.",
    )
    .retry_after_ms(1000)
}

impl Draft<'_> {
    fn found(self, revision: u64) -> Found {
        Found {
            user: self.wish.user.clone(),
            id: self.id.clone(),
            record: self.record,
            revision,
        }
    }
}

fn cart_revision(answer: &TxnAnswer) -> u64 {
    answer.got(0).map_or(0, |kv| kv.mod_revision)
}

fn price_changed(total_minor: i64) -> Problem {
    Problem::new(
        problem::PRICE_CHANGED,
        "The sum is another one than the one you saw.",
    )
    .extra("total_minor", total_minor)
}
