//! How an order is made and brought to its end. Reading order: `place` (one transaction that says what is to be
//! done), `lines` (of what), `drive` (does it, step by step), `adopt` (goes on where a dead instance stopped), `money`
//! (asks the payment service).
//! Invariant: whoever orders may go, and whoever carries an order on may die, at any instruction: an order that has
//! not ended has a `todo`, and whoever finds it can go on from what the store says.

mod adopt;
mod drive;
mod lines;
mod money;
mod place;

use std::collections::HashSet;
use std::sync::PoisonError;

use kvstore_client::wire::Revision;
use service::problem::{self, Problem, Result};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::Shop;
use crate::domain::{OrderId, Status, UserId};
use crate::store::{Once, OrderRecord, read};

pub(crate) use drive::{forget_token, is_untold, jitter, or_last_known};
pub(crate) use money::Bill;
pub(crate) use place::Placed;
use place::ordered;

/// An order that is asked for.
pub(crate) struct Wish {
    pub(crate) user: UserId,
    pub(crate) wanted: Wanted,
    /// `None` only where everybody is trusted.
    pub(crate) card: Option<money::Card>,
    /// What the one who orders has seen as the sum.
    pub(crate) total_minor: Option<i64>,
    pub(crate) once: Option<Once>,
}

pub(crate) use money::Card;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of the user's cart.
    Cart,
    /// Quantities by product, each product once.
    Items(Vec<(String, i64)>),
}

/// Where an order stands.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) user: UserId,
    pub(crate) id: OrderId,
    pub(crate) record: OrderRecord,
    pub(crate) revision: Revision,
}

/// What became of a wish within the time that is waited for it.
pub(crate) struct Checkout {
    pub(crate) found: Found,
    /// The order was there already.
    pub(crate) replayed: bool,
}

/// How an order ended, or that it has not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    Declined,
    Canceled,
    NotYet,
}

impl Ended {
    pub(crate) fn of(status: Status) -> Self {
        match status {
            Status::Paid | Status::Confirmed => Self::Well,
            Status::PaymentFailed => Self::Declined,
            Status::Canceled | Status::Refunded => Self::Canceled,
            Status::Pending | Status::Authorized | Status::Canceling | Status::Refunding => Self::NotYet,
        }
    }
}

/// The orders that this instance carries on at the moment.
#[derive(Default)]
pub(crate) struct Active {
    orders: HashSet<OrderId>,
}

/// As long as it lives, nobody else here takes the order up.
pub(crate) struct Carrying {
    shop: Shop,
    id: OrderId,
}

impl Drop for Carrying {
    fn drop(&mut self) {
        let mut active = self.shop.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.orders.remove(&self.id);
    }
}

impl Shop {
    /// `None` when somebody here carries it on already.
    fn carry(&self, id: &OrderId) -> Option<Carrying> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.orders.insert(id.clone()).then(|| Carrying {
            shop: self.clone(),
            id: id.clone(),
        })
    }

    /// Orders, and waits for the end for as long as the configuration says, or not at all.
    pub(crate) async fn order(&self, wish: Wish, wait: bool) -> Result<Checkout> {
        let until = Instant::now() + Duration::from_millis(self.config.order_wait_ms);
        let Ok(place) = self.orders.clone().try_acquire_owned() else {
            return Box::pin(self.turn_away(&wish, wait, until)).await;
        };
        if self.is_by_mail() {
            return Box::pin(self.order_by_mail(wish, wait, until)).await;
        }
        let (placed_tx, placed) = oneshot::channel();
        let (ended_tx, ended) = oneshot::channel();
        let shop = self.clone();
        // A task of its own: the one who orders may go at any time.
        let working = async move {
            let _place = place;
            shop.place_and_drive(wish, placed_tx, ended_tx).await;
        };
        self.tasks.spawn("order", Box::pin(working));
        let placed = placed.await;
        let placed = placed.map_err(|gone| Problem::internal("place an order", gone))??;
        match placed {
            Placed::Here(found) if wait && !found.record.status.is_ended() => {
                let ended = tokio::time::timeout_at(until, ended).await;
                let found = ended.ok().and_then(std::result::Result::ok).unwrap_or(*found);
                Ok(Checkout {
                    found,
                    replayed: false,
                })
            }
            Placed::Here(found) => Ok(Checkout {
                found: *found,
                replayed: false,
            }),
            Placed::Before(user, id) => self.replay(&user, &id, wait, until).await,
        }
    }

    /// Without a place for one more order. What the same request ordered before has a place already, for as long as
    /// payment is down perhaps, and whoever repeats it must not hear that there is no such order.
    async fn turn_away(&self, wish: &Wish, wait: bool, until: Instant) -> Result<Checkout> {
        let Some(kept) = self.store.answered(wish.once.as_ref()).await? else {
            // With a key it may be under way at this moment, here or elsewhere.
            let detail = if wish.once.is_some() {
                "More is being ordered than can be carried on at a time. Repeat it with the same key: it happens once."
            } else {
                "More is being ordered than can be carried on at a time. This request ordered nothing."
            };
            return Err(Problem::new(problem::OVERLOADED, detail));
        };
        let (user, id) = ordered(kept)?;
        self.replay(&user, &id, wait, until).await
    }

    /// The order that the same request made before.
    async fn replay(&self, user: &UserId, id: &OrderId, wait: bool, until: Instant) -> Result<Checkout> {
        let found = self.found_order(user, id).await?;
        let found = if wait {
            self.wait_for_end(found, until).await?
        } else {
            found
        };
        Ok(Checkout {
            found,
            replayed: true,
        })
    }

    /// What happens here is one write; if whoever orders goes, the actors go on.
    async fn order_by_mail(&self, wish: Wish, wait: bool, until: Instant) -> Result<Checkout> {
        match self.place(wish).await?.0 {
            Placed::Here(found) => Ok(Checkout {
                found: self.wait_by_mail(*found, wait, until).await?,
                replayed: false,
            }),
            Placed::Before(user, id) => self.replay(&user, &id, wait, until).await,
        }
    }

    async fn place_and_drive(
        &self,
        wish: Wish,
        placed: oneshot::Sender<Result<Placed>>,
        ended: oneshot::Sender<Found>,
    ) {
        let result = self.place(wish).await;
        let (found, carrying) = match result {
            Ok((Placed::Here(found), carrying)) => (found, carrying),
            Ok((before, _)) => return tell(placed, Ok(before)),
            Err(problem) => return tell(placed, Err(problem)),
        };
        tell(placed, Ok(Placed::Here(found.clone())));
        if let Some(found) = self.drive(*found).await {
            tell(ended, found);
        }
        drop(carrying);
    }
}

impl Shop {
    /// Brings an order to its end beside what is going on, unless somebody here does already.
    pub(super) fn carry_on(&self, found: Found) {
        let Some(carrying) = self.carry(&found.id) else {
            return;
        };
        let shop = self.clone();
        self.tasks.spawn("order", async move {
            let _carrying = carrying;
            drop(shop.drive(found).await);
        });
    }
}

/// Whoever waited may have gone.
fn tell<T>(waiting: oneshot::Sender<T>, news: T) {
    if waiting.send(news).is_err() {
        tracing::trace!("nobody waits for an order any longer");
    }
}

impl Shop {
    /// The order as it stands.
    pub(crate) async fn found_order(&self, user: &UserId, id: &OrderId) -> Result<Found> {
        let kv = self.store.client.get(&self.store.keys.order(user, id)).await;
        let kv = kv.map_err(kvstore_client::problem_of)?;
        let Some(kv) = kv else {
            let missing = Problem::new(problem::ORDER_NOT_FOUND, "This user has no order with this id.");
            return Err(self.notice(user, id).await?.unwrap_or(missing));
        };
        Ok(Found {
            user: user.clone(),
            id: id.clone(),
            record: read(&kv.key, &kv.bytes())?,
            revision: kv.mod_revision,
        })
    }
}
