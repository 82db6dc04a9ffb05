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

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{OpResult, TxnAnswer};
use kvstore_client::{Error, KvClient, Txn};
use service::config::PaymentConfig;
use service::problem::{self, Problem, Result};

pub(crate) use cards::Opening;
pub(crate) use find::{CardRow, Cursor, PageOf};
pub(crate) use once::Once;
pub(crate) use pay::{Named, Purchase};
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
}

impl Ledger {
    pub(crate) fn new(client: KvClient, config: &PaymentConfig) -> Self {
        Self {
            client,
            hold_ms: config.hold_s * 1000,
            answer_ms: config.answer_s * 1000,
        }
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

    async fn commit(&self, txn: Txn) -> Result<TxnAnswer> {
        self.client.txn(txn).await.map_err(trouble)
    }
}

/// What a trouble with the store means for the caller: never a fault of theirs, and never more than they may know.
pub(crate) fn trouble(error: Error) -> Problem {
    match error {
        Error::Unknown { .. } => Problem::new(
            problem::OUTCOME_UNKNOWN,
            "The store could not say whether this was done. Repeat the request unchanged: it is done once at most.",
        ),
        Error::Problem(refused) if refused.code == "disk-full" => Problem::new(
            problem::OVERLOADED,
            "The store has no room for writes at the moment. Nothing was done.",
        ),
        Error::Unavailable { source } => {
            tracing::warn!(error = %source, "the store cannot be reached");
            Problem::new(
                problem::NOT_READY,
                "The store cannot be reached at the moment. Nothing was done.",
            )
        }
        Error::Compacted { .. } => Problem::new(
            problem::COMPACTED,
            "The store no longer keeps that revision. Ask without one, or for a newer one.",
        ),
        Error::Problem(refused) if refused.code == "future-revision" => {
            Problem::new(problem::FUTURE_REVISION, "No write has made that revision yet.")
        }
        Error::Problem(refused) if refused.status == 400 && refused.code == "malformed-parameter" => {
            Problem::new(
                problem::MALFORMED_PARAMETER,
                "The cursor is not one that this service gave out.",
            )
        }
        Error::Unauthorized(_) | Error::Forbidden(_) => {
            tracing::error!(error = %error, "the store does not let this service in: its token was changed");
            Problem::new(
                problem::NOT_READY,
                "This service may not use its store at the moment. Nothing was done.",
            )
        }
        error => {
            // Trouble below a service is 503, never 500: the caller may ask again.
            let error = anyhow::Error::new(error);
            tracing::error!(
                error = format!("{error:#}"),
                "the store gave an answer that does not fit"
            );
            Problem::new(
                problem::NOT_READY,
                "The store gave an answer that this service cannot use. Nothing more is known.",
            )
        }
    }
}

/// The single key that an op of a branch read.
fn got(answer: &TxnAnswer, op: usize) -> Option<&KeyValue> {
    match answer.results.get(op) {
        Some(OpResult::Get { kvs, .. }) => kvs.first(),
        _ => None,
    }
}

/// A state that no sequence of requests can lead to: the ledger is damaged, and a person must look.
fn inconsistent(what: &str) -> Problem {
    Problem::internal("keep the ledger", anyhow::anyhow!("{what}"))
}
