//! Carries an order on: looks where it stands, asks the payment service, writes down what follows, until it has ended.
//! Invariant: every move is conditional on the revision that was read, so of many who carry the same order on, and of
//! a cancel that races with them, one wins and the others see what it did. What ends an order takes its `todo` away,
//! and gives the goods back in the same transaction.

use kvstore_client::Txn;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use tokio::time::{Duration, Instant};

use super::Found;
use crate::domain::{Status, Turn, after, next_step};
use crate::shop::carts::FoundCart;
use crate::shop::{QUANTITY_MAX, Shop};
use crate::store::{GoodsPart, OrderRecord, PaymentOf, TodoRecord, inconsistent, read, write};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Shop {
    /// Goes on until the order has ended, or the instance is told to stop: then another one will.
    pub(super) async fn drive(&self, mut found: Found) -> Option<Found> {
        let mut pause = PAUSE_MIN;
        loop {
            if found.record.status.is_ended() {
                self.counted
                    .with_label_values(&[found.record.status.word()])
                    .inc();
                return Some(found);
            }
            if self.tasks.is_stopping() {
                return None;
            }
            match self.step(&found).await {
                Ok(Some(next)) => {
                    found = next;
                    pause = PAUSE_MIN;
                    continue;
                }
                Ok(None) => {}
                Err(problem) => {
                    tracing::debug!(order.id = found.id.as_str(), %problem, "an order waits for the store");
                }
            }
            if tokio::time::timeout(jitter(pause), self.tasks.stopping())
                .await
                .is_ok()
            {
                return None;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            // Somebody else may have gone on meanwhile, or canceled.
            if let Ok(read) = self.found_order(&found.user, &found.id).await {
                found = read;
            }
        }
    }

    /// One step; `None` when it is to be tried again later.
    async fn step(&self, found: &Found) -> Result<Option<Found>> {
        let now_ms = now_ms();
        let age_ms = now_ms.saturating_sub(found.record.created_ms);
        let step = next_step(found.record.status, age_ms, self.config.order_pending_s * 1000);
        let (paid, payment) = self.ask(&found.bill(), step).await;
        let mut record = OrderRecord {
            changed_ms: now_ms,
            payment: payment.or_else(|| found.record.payment.clone()),
            ..found.record.clone()
        };
        match after(step, &paid) {
            Turn::Again => return Ok(None),
            Turn::Becomes(status) => record.status = status,
            Turn::Fails(code) => {
                record.status = Status::PaymentFailed;
                record.decline = Some(code);
            }
        }
        forget_token(&mut record);
        let next = self.move_on(found, record).await?;
        self.points.reach(next.record.status.word()).await;
        Ok(Some(next))
    }

    /// Writes the order's next state, unless somebody else was faster: then that is its state.
    pub(crate) async fn move_on(&self, found: &Found, record: OrderRecord) -> Result<Found> {
        let keys = &self.store.keys;
        let key = keys.order(&found.user, &found.id);
        let mut txn = Txn::new()
            .when(Condition::unchanged(&key, found.revision))
            .otherwise(Op::get(&key))
            .then(Op::put(&key, write(&record)));
        if record.status.is_ended() {
            txn = txn.then(Op::delete(&keys.todo(&found.id)));
        } else if found.record.status.is_ended() {
            let todo = TodoRecord {
                user: found.user.to_string(),
                owner: self.instance.clone(),
            };
            txn = txn.then(Op::put(&keys.todo(&found.id), write(&todo)));
        }
        let held = |status: Status| status.reserves() || status.sells();
        if held(found.record.status) && !held(record.status) {
            for (product, quantity) in record.quantities() {
                let stock_key = keys.goods_part(product, GoodsPart::Stock);
                txn = txn.then(Op::add(&stock_key, quantity, None, None));
            }
        }
        if record.status == Status::PaymentFailed && record.from_cart {
            txn = self.refill_cart(txn, found, &record).await?;
        }
        let answer = self.store.commit(txn).await?;
        match answer.branch {
            Branch::Then => Ok(Found {
                record,
                revision: answer.revision,
                ..found.clone()
            }),
            Branch::Else => {
                let kv = answer.got(0).ok_or_else(|| inconsistent("an order is gone"))?;
                Ok(Found {
                    record: read(&kv.key, &kv.bytes())?,
                    revision: kv.mod_revision,
                    ..found.clone()
                })
            }
            Branch::Failed => Err(inconsistent("the stock of a product is more than can be counted")),
        }
    }

    /// The lines return to the cart, beside what was put there meanwhile.
    async fn refill_cart(&self, txn: Txn, found: &Found, record: &OrderRecord) -> Result<Txn> {
        let FoundCart {
            record: mut cart,
            revision,
        } = self.found_cart(&found.user).await?;
        cart.merge(&record.lines, QUANTITY_MAX);
        let key = self.store.keys.cart(&found.user);
        Ok(txn
            .when(Condition::unchanged(&key, revision))
            .then(Op::put(&key, write(&cart))))
    }

    /// Waits until somebody has brought the order to its end, or the time is over. What is known of it is told also when
    /// the store cannot be asked any more: it was written down, and "nothing was done" would not be true.
    pub(crate) async fn wait_for_end(&self, found: Found, until: Instant) -> Result<Found> {
        if found.record.status.is_ended() {
            return Ok(found);
        }
        match tokio::time::timeout_at(
            until,
            self.watch_until(found.clone(), |record| record.status.is_ended()),
        )
        .await
        {
            Ok(ended) => or_last_known(ended, found),
            Err(_elapsed) => or_last_known(self.found_order(&found.user, &found.id).await, found),
        }
    }
}

/// Whether the store cannot tell what was asked for: it cannot be reached, or it has forgotten what came since.
pub(crate) fn is_untold(problem: &Problem) -> bool {
    problem.kind.status >= 500 || problem.kind == problem::COMPACTED
}

/// What an order has come to, or what was known of it last where the store cannot tell.
pub(crate) fn or_last_known(asked: Result<Found>, known: Found) -> Result<Found> {
    match asked {
        Err(problem) if is_untold(&problem) => {
            tracing::warn!(order.id = known.id.as_str(), %problem, "what became of an order is not known");
            Ok(known)
        }
        told => told,
    }
}

/// A token is needed only to authorize.
pub(crate) fn forget_token(record: &mut OrderRecord) {
    if record.status != Status::Pending
        && let Some(PaymentOf { token, .. }) = &mut record.payment
    {
        *token = None;
    }
}

/// Half of the pause is drawn, so that orders that failed together do not return together.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    pause / 2 + (pause / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OrderId, UserId};

    #[test]
    fn what_was_written_down_is_never_told_as_not_done() {
        let found = |revision| Found {
            user: UserId::parse("u").unwrap(),
            id: OrderId::parse(&"a".repeat(32)).unwrap(),
            record: OrderRecord {
                status: Status::Pending,
                created_ms: 1,
                changed_ms: 1,
                lines: Vec::new(),
                total_minor: 0,
                currency: "EUR".to_owned(),
                from_cart: false,
                payment: None,
                decline: None,
                errand: None,
            },
            revision,
        };
        let refused = |kind| or_last_known(Err(Problem::new(kind, "")), found(1));
        for kind in [
            problem::NOT_READY,
            problem::OVERLOADED,
            problem::OUTCOME_UNKNOWN,
            problem::COMPACTED,
        ] {
            assert_eq!(refused(kind).unwrap().revision, 1);
        }
        assert_eq!(
            refused(problem::OUT_OF_STOCK).unwrap_err().kind.code,
            "out-of-stock"
        );
        assert_eq!(or_last_known(Ok(found(2)), found(1)).unwrap().revision, 2);
    }
}
