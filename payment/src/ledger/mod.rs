//! The ledger: each request is at most one read and one transaction of the store.
//! Reading order: `keys` (where everything stands), `records` (what is stored), `pay`, `resolve` (capture, cancel,
//! expire), `refund`, `cards`, `once` (idempotency keys), `find`, `check`, `sweep`.
//! Invariant: money moves only in transactions that move both sides of it and the card's guard together; conditions
//! stand only on keys of the payment or card itself, so that a busy card or merchant needs no second try.
//! It must not know HTTP; it answers with what a route says, or with a problem.

mod answers;
mod cards;
mod check;
mod find;
mod keys;
mod once;
mod pay;
mod records;
mod refund;
mod resolve;
mod sweep;
mod tally;

use std::time::Duration;

use kvstore_client::wire::kv::{KeyValue, Page};
use kvstore_client::wire::txn::TxnAnswer;
use kvstore_client::{KvClient, RangeRequest, Txn};
use service::config::PaymentConfig;
use service::problem::{Problem, Result};

use crate::points::{Moment, Points};

pub(crate) use kvstore_client::problem_of as trouble;

pub(crate) use cards::Opening;
pub(crate) use find::{CardRow, Cursor, PageOf};
pub(crate) use once::Once;
pub(crate) use pay::{Named, Purchase, random_id};
pub(crate) use resolve::Wish;

/// An answer that a route gives, and whether it was given before.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: String,
    pub(crate) replayed: bool,
}

/// Cheap to clone; it keeps nothing between requests.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) client: KvClient,
    hold_ms: u64,
    answer_ms: u64,
    points: Points,
}

impl Ledger {
    pub(crate) fn new(client: KvClient, config: &PaymentConfig, points: Points) -> Self {
        Self {
            client,
            hold_ms: config.hold_s * 1000,
            answer_ms: config.answer_s * 1000,
            points,
        }
    }

    /// For tests that need none: there is no store.
    #[cfg(test)]
    pub(crate) fn nowhere(config: &PaymentConfig) -> Self {
        let client = KvClient::builder(["127.0.0.1:1"]).build();
        Self::new(client.expect("it is an address"), config, Points::none())
    }

    /// The same ledger with more time for each request to the store.
    pub(crate) fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            client: self.client.with_deadline(deadline),
            ..self.clone()
        }
    }

    /// Whether the store can be reached and knows this service.
    pub(crate) async fn reach(&self) -> Result<()> {
        let asked = self.client.with_deadline(Duration::from_secs(1)).revision().await;
        asked.map(drop).map_err(trouble)
    }

    async fn read(&self, step: &'static str, key: &str) -> Result<Option<KeyValue>> {
        self.points.reach(step, Moment::BeforeRead).await;
        let read = self.client.get(key).await;
        self.points.reach(step, Moment::AfterRead).await;
        read.map_err(trouble)
    }

    async fn read_range(&self, step: &'static str, range: RangeRequest) -> Result<Page> {
        self.points.reach(step, Moment::BeforeRead).await;
        let read = self.client.range(range).await;
        self.points.reach(step, Moment::AfterRead).await;
        read.map_err(trouble)
    }

    async fn commit(&self, step: &'static str, txn: Txn) -> Result<TxnAnswer> {
        self.points.reach(step, Moment::BeforeCommit).await;
        let answer = self.client.txn(txn).await;
        self.points.reach(step, Moment::AfterCommit).await;
        answer.map_err(trouble)
    }
}

/// A state that no sequence of requests can lead to: the ledger is damaged, and a person must look.
fn inconsistent(what: &str) -> Problem {
    Problem::internal("keep the ledger", anyhow::anyhow!("{what}"))
}
