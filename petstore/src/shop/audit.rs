//! `GET /admin/audit`: everything the shop and the ledger have written down, as of one revision.
//! Invariant: shop, payments and ledger are read at the same revision, or all of it anew at a newer one where
//! compaction gives that up in between; and in memory there are never more than a part of the orders, a few bytes of
//! each, however many were ever made.

use kvstore_client::wire::Revision;
use kvstore_client::{KvClient, RangeRequest, ReadOptions, problem_of};
use payment_client::PaymentClient;
use serde::Serialize;
use service::problem::{self, Problem, Result};
use tokio::time::{Duration, timeout};

use super::Shop;
use super::tally::{Part, Tally};
use crate::store::{DeadRecord, GoodsPart, read, read_int};

/// So few that a page is read well within the time of a single try, also on a busy machine.
const PAGE_ROWS: u32 = 2000;
const PAGE_DEADLINE: Duration = Duration::from_secs(10);
/// So many orders are held against their payments at a time, which takes some 20 MB. When there are more, everything
/// is read once for each part of them.
const ORDERS_AT_ONCE: u64 = 100_000;
/// A walk that has begun keeps what it reads, but none begins at a revision that was given up meanwhile, and an audit
/// is many, some of them the payment service's. So it begins anew then, so often at the most.
const BEGINNINGS_MAX: usize = 5;

#[derive(Serialize)]
pub(crate) struct Audit {
    revision: Revision,
    ok: bool,
    orders: usize,
    /// Orders on their way, which is no violation.
    unfinished: usize,
    violations: Vec<String>,
}

impl Shop {
    pub(crate) async fn audit(&self) -> Result<Audit> {
        let Ok(_room) = self.audits.try_acquire() else {
            return Err(Problem::new(
                problem::OVERLOADED,
                "The shop is being audited already; each audit reads the whole of it.",
            )
            .retry_after_ms(1000));
        };
        let time = Duration::from_millis(self.config.audit_ms_max);
        match timeout(time, self.audit_anew()).await {
            Ok(audit) => audit,
            Err(_elapsed) => Err(Problem::new(
                problem::TIMEOUT,
                "The shop is too large to be audited in this time.",
            )),
        }
    }

    async fn audit_anew(&self) -> Result<Audit> {
        for _ in 0..BEGINNINGS_MAX {
            match self.audit_now().await {
                Err(problem) if problem.kind == problem::COMPACTED => {
                    tracing::debug!("an audit begins anew, since its revision was given up");
                }
                told => return told,
            }
        }
        Err(Problem::new(
            problem::OVERLOADED,
            "The store gives up its history faster than the shop can be audited.",
        ))
    }

    async fn audit_now(&self) -> Result<Audit> {
        let client = self.store.client.with_deadline(PAGE_DEADLINE);
        let revision = client.revision().await.map_err(problem_of)?;
        let mut tally = Tally::default();
        let keys = &self.store.keys;
        for prefix in [
            keys.all_goods(),
            keys.all_received(),
            keys.all_mail(),
            keys.dead_letters(),
            keys.rooms(),
        ] {
            self.walk(&client, &mut tally, &prefix, revision).await?;
        }
        self.points.reach("audited the shelves").await;
        let orders = client.range(RangeRequest {
            count_only: true,
            ..at(&keys.all_orders(), revision)
        });
        let parts = parts_of(orders.await.map_err(problem_of)?.count);
        let payment = self
            .payment
            .with_deadline(Duration::from_millis(self.config.audit_ms_max));
        for part in 0..parts {
            tally.look_at(Part { part, parts });
            self.walk(&client, &mut tally, &keys.all_orders(), revision)
                .await?;
            self.walk(&client, &mut tally, &keys.todos(), revision).await?;
            self.points.reach("audited the orders").await;
            self.walk_payments(&payment, &mut tally, revision).await?;
            tally.close_part();
        }
        let ledger = payment
            .check_ledger(Some(revision))
            .await
            .map_err(|error| not_told(&error))?;
        for violation in ledger.violations {
            tally.violation(format!("ledger: {violation}"));
        }
        let (orders, unfinished) = (tally.orders(), tally.todos());
        let violations = tally.finish();
        if let Some(first) = violations.first() {
            tracing::error!(
                revision,
                violations = violations.len(),
                first,
                "the shop is not sound"
            );
        }
        Ok(Audit {
            revision,
            ok: violations.is_empty(),
            orders,
            unfinished,
            violations,
        })
    }

    async fn walk(
        &self,
        client: &KvClient,
        tally: &mut Tally,
        prefix: &str,
        revision: Revision,
    ) -> Result<()> {
        let mut walk = client.pages(RangeRequest {
            limit: Some(PAGE_ROWS),
            ..at(prefix, revision)
        });
        while let Some(page) = walk.next().await.map_err(problem_of)? {
            for kv in &page.kvs {
                let rest = kv.key.strip_prefix(prefix).unwrap_or_default();
                self.row(tally, prefix, rest, &kv.key, &kv.bytes())?;
            }
        }
        Ok(())
    }

    async fn walk_payments(
        &self,
        payment: &PaymentClient,
        tally: &mut Tally,
        revision: Revision,
    ) -> Result<()> {
        let start = format!("{}-", self.config.name);
        let mut walk = payment.payments_at(&self.config.name, revision);
        while let Some(page) = walk.next().await.map_err(|error| not_told(&error))? {
            // Others may pay the shop for other things than orders.
            for paid in page.iter().filter(|paid| paid.id.starts_with(&start)) {
                tally.payment(paid);
            }
        }
        Ok(())
    }

    fn row(&self, tally: &mut Tally, prefix: &str, rest: &str, key: &str, value: &[u8]) -> Result<()> {
        let keys = &self.store.keys;
        if let Some((product, part)) = keys.parse_goods(key) {
            if part == GoodsPart::Stock {
                tally.stock(product, read_int(key, value)?);
            }
        } else if prefix == keys.all_received() {
            tally.received(rest, read_int(key, value)?);
        } else if prefix == keys.todos() {
            tally.todo(rest);
        } else if prefix == keys.rooms() {
            tally.room(rest, read_int(key, value)?);
        } else if prefix == keys.all_mail() {
            tally.letter(key, value);
        } else if prefix == keys.dead_letters() {
            let dead: DeadRecord = read(key, value)?;
            tally.letter(&dead.key, dead.post.as_bytes());
        } else if let Some((_user, order)) = rest.split_once('/')
            && tally.is_in_part(order)
        {
            tally.order(order, &read(key, value)?);
        }
        Ok(())
    }
}

/// Everything below a prefix, as it was then.
fn at(prefix: &str, revision: Revision) -> RangeRequest {
    RangeRequest {
        read: ReadOptions {
            revision: Some(revision),
            ..ReadOptions::default()
        },
        ..RangeRequest::prefix(prefix)
    }
}

/// In how many parts so many orders are looked at. What has a todo or a payment and is no order is in some part too.
fn parts_of(orders: u64) -> u64 {
    orders.div_ceil(ORDERS_AT_ONCE).max(1)
}

fn not_told(error: &payment_client::Error) -> Problem {
    if error.code() == problem::COMPACTED.code {
        return Problem::new(
            problem::COMPACTED,
            "The payments of that revision are no longer kept.",
        );
    }
    tracing::warn!(code = error.code(), "the ledger cannot be asked");
    Problem::new(
        problem::NOT_READY,
        "The payment service cannot be asked at the moment.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_payment_no_longer_keeps_is_told_apart() {
        let told = |code: &str| {
            let code = code.to_owned();
            let problem = kvstore_client::wire::problem::Problem {
                code,
                ..Default::default()
            };
            not_told(&payment_client::Error::Problem(Box::new(problem))).kind
        };
        assert_eq!(told("compacted"), problem::COMPACTED);
        assert_eq!(told("unauthorized"), problem::NOT_READY);
    }

    #[test]
    fn there_is_always_a_part_and_none_is_too_large() {
        for orders in [0, 1, ORDERS_AT_ONCE, ORDERS_AT_ONCE + 1, 10 * ORDERS_AT_ONCE + 7] {
            let parts = parts_of(orders);
            assert!(
                parts >= 1 && orders <= parts * ORDERS_AT_ONCE,
                "{orders}: {parts}"
            );
        }
        assert_eq!(parts_of(ORDERS_AT_ONCE), 1);
    }
}
