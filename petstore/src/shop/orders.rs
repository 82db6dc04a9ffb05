//! Looking at orders, and canceling them.
//! Invariant: a cancel and the progress of an order race on its revision, and one of them wins. What was paid is
//! given back; what is being paid at this moment cannot be stopped.

use kvstore_client::wire::txn::Branch;
use kvstore_client::{RangeRequest, Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use tokio::time::{Duration, Instant};

use super::Shop;
use super::checkout::{Checkout, Found, or_last_known};
use crate::domain::{OrderId, Status, UserId};
use crate::store::{Kept, Once, OrderRecord, Store, inconsistent, read};

/// Only the progress of the same order is in the way, and an order has few states.
const TRIES_MAX: usize = 8;

/// Orders, the newest first.
pub(crate) struct OrderPage {
    pub(crate) orders: Vec<(String, OrderRecord)>,
    pub(crate) next: Option<String>,
}

impl Shop {
    pub(crate) async fn orders_of(
        &self,
        user: &UserId,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<OrderPage> {
        let prefix = self.store.keys.orders(user);
        let range = RangeRequest {
            limit: Some(limit),
            cursor,
            descending: true,
            uncounted: true,
            ..RangeRequest::prefix(&prefix)
        };
        let page = self.store.client.range(range).await.map_err(problem_of)?;
        let mut orders = Vec::with_capacity(page.kvs.len());
        for kv in &page.kvs {
            let id = kv.key.strip_prefix(&prefix);
            let id = id.ok_or_else(|| inconsistent("a range gives what was not asked for"))?;
            orders.push((id.to_owned(), read(&kv.key, &kv.bytes())?));
        }
        Ok(OrderPage {
            orders,
            next: page.cursor.filter(|_| page.more),
        })
    }

    /// Cancels, and waits for the end a while. An order that is canceled already stays so.
    pub(crate) async fn cancel(&self, user: &UserId, id: &OrderId, once: Option<&Once>) -> Result<Checkout> {
        let until = Instant::now() + Duration::from_millis(self.config.order_wait_ms);
        if self.store.answered(once).await?.is_some() {
            let found = self.found_order(user, id).await?;
            return Ok(Checkout {
                found: self.wait_for_end(found, until).await?,
                replayed: true,
            });
        }
        let found = Box::pin(self.try_to_cancel(user, id, until)).await?;
        // Kept only now: until it is, a repetition cancels what is canceled, which is the same. An order that has not
        // heard of it yet may still refuse.
        let keep = once.is_some() && is_taken_back(found.record.status);
        let replayed = keep && self.is_kept_already(&found, once).await;
        Ok(Checkout { found, replayed })
    }

    /// Keeps the answer, unless the key has one. What was done is told also where that fails, and where the key was
    /// used for another order at the same time: a refusal would not be true any more.
    async fn is_kept_already(&self, found: &Found, once: Option<&Once>) -> bool {
        self.points.reach("to be kept").await;
        match self.keep_cancel(found, once).await {
            Ok(first) => !first,
            Err(problem) => {
                tracing::warn!(order.id = found.id.as_str(), %problem, "the answer to a cancel is not kept");
                false
            }
        }
    }

    /// Whether this is the first answer to the key.
    async fn keep_cancel(&self, found: &Found, once: Option<&Once>) -> Result<bool> {
        let kept = Kept::of_order(found.user.as_str(), found.id.as_str());
        let txn = self.store.keep(Txn::new(), once, &kept);
        let answer = self.store.commit(self.store.guard(txn, once)).await?;
        Ok(answer.branch == Branch::Then || Store::replay_of(once, answer.got(0))?.is_none())
    }

    async fn try_to_cancel(&self, user: &UserId, id: &OrderId, until: Instant) -> Result<Found> {
        let mut found = self.found_order(user, id).await?;
        for _ in 0..TRIES_MAX {
            self.points.reach("read to be canceled").await;
            let status = match found.record.status {
                Status::Pending => Status::Canceling,
                Status::Paid => Status::Refunding,
                Status::Canceling | Status::Refunding => return self.wait_for_end(found, until).await,
                Status::Canceled | Status::Refunded => return Ok(found),
                Status::Authorized | Status::PaymentFailed | Status::Confirmed => {
                    return Err(not_cancelable(found.record.status));
                }
            };
            let by_mail =
                found.record.errand.is_some() || found.record.status.is_ended() && self.is_by_mail();
            if by_mail {
                match self.cancel_by_mail(&found, until).await? {
                    Some(moved) => found = moved,
                    // It may hear of it yet, so whatever state it is in is no refusal.
                    None => return or_last_known(self.found_order(user, id).await, found),
                }
                continue;
            }
            let record = OrderRecord {
                status,
                changed_ms: now_ms(),
                ..found.record.clone()
            };
            let revision = found.revision;
            let moved = self.move_on(&found, record).await?;
            if moved.record.status == status && moved.revision > revision {
                self.points.reach(status.word()).await;
                self.carry_on(moved.clone());
                return self.wait_for_end(moved, until).await;
            }
            found = moved;
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "The order is changed all the time, so that it could not be canceled. Ask again.",
        ))
    }
}

/// Whether it is what a cancel makes of an order.
fn is_taken_back(status: Status) -> bool {
    matches!(
        status,
        Status::Canceling | Status::Canceled | Status::Refunding | Status::Refunded
    )
}

fn not_cancelable(status: Status) -> Problem {
    let detail = match status {
        Status::Authorized => "The order is being paid at this very moment; cancel it once it is paid.",
        _ => "The order has ended, so there is nothing left to cancel.",
    };
    Problem::new(problem::ORDER_NOT_CANCELABLE, detail).extra("order_status", status.word())
}
