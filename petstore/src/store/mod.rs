//! Where everything stands in the store, and how it is written: keys, hashes in place of what nobody may read there,
//! records, and requests that happen once.
//! Invariant: only what begins with `shop/NAME/` is touched, so that several shops share one store.
//! It must not know HTTP or what a request is for.

mod keyed;
mod keys;
mod mail;
mod mail_keys;
mod once;
mod records;

use std::time::Duration;

use kvstore_client::wire::txn::TxnAnswer;
use kvstore_client::{KvClient, Txn, problem_of};
use service::problem::{Problem, Result};

pub(crate) use keyed::{TypedName, keyed};
pub(crate) use keys::{GoodsPart, Keys};
pub(crate) use mail::{Actor, DeadRecord, Errand, Letter, Phase, Post, Refusal};
pub(crate) use mail_keys::SHARDS;
pub(crate) use once::{Kept, Once, Reply};
pub(crate) use records::{
    AccountRecord, CartRecord, InstanceRecord, OrderRecord, PaymentOf, SessionRecord, TodoRecord,
    TriesRecord, UserRecord, read, read_int, write,
};

/// Cheap to clone; it keeps nothing between requests.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) client: KvClient,
    pub(crate) keys: Keys,
    /// How long answers to idempotency keys are kept.
    answer_ms: u64,
}

impl Store {
    pub(crate) fn new(client: KvClient, keys: Keys, answer_ms: u64) -> Self {
        Self {
            client,
            keys,
            answer_ms,
        }
    }

    /// The same store with another time for each request.
    pub(crate) fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            client: self.client.with_deadline(deadline),
            ..self.clone()
        }
    }

    pub(crate) async fn commit(&self, txn: Txn) -> Result<TxnAnswer> {
        self.client.txn(txn).await.map_err(problem_of)
    }
}

/// A state that no sequence of requests can lead to: something is damaged, and a person must look.
pub(crate) fn inconsistent(what: &str) -> Problem {
    Problem::internal("keep the shop", anyhow::anyhow!("{what}"))
}
