//! Who takes part and what they own, read at one revision; and the rules by which it may change.
//! Invariant: a snapshot is never mixed of two revisions; a change commits only while the book is as it was read.

use std::collections::BTreeMap;

use kvstore_client::wire::Revision;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op, OpResult, TxnAnswer};
use kvstore_client::{KvClient, Txn};
use service::config::ConsensusConfig;
use service::problem::{self, Problem, Result};

use super::keys;
use super::records::{self, Book, ModelRecord};
use crate::process::trouble;
use crate::stakes::Params;

/// However many the store takes: what they write has a size, too.
pub(super) const OPS_MAX: usize = 128;
/// More than may take part.
const MODELS_READ_MAX: u32 = 64;

/// How to reach the ledger, and its rules. Cheap to clone; it keeps nothing between requests.
#[derive(Clone, Debug)]
pub(crate) struct Bank {
    pub(crate) client: KvClient,
    pub(crate) params: Params,
    pub(crate) classes: usize,
    pub(crate) config: ConsensusConfig,
    /// Of one transaction.
    pub(crate) ops_max: usize,
}

/// The network at one revision.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) book: Book,
    pub(crate) book_revision: Revision,
    pub(crate) roster_revision: Revision,
    pub(crate) models: BTreeMap<String, ModelRecord>,
    /// What else was asked for, one by one.
    pub(crate) extra: Vec<Vec<KeyValue>>,
}

impl Bank {
    /// Everything at one revision, and what `extra` gets besides.
    pub(crate) async fn snapshot(&self, extra: Vec<Op>) -> Result<Snapshot> {
        let mut txn = Txn::new()
            .then(Op::get(keys::BOOK))
            .then(Op::get(keys::ROSTER))
            .then(Op::get_prefix(keys::MODELS, Some(MODELS_READ_MAX)));
        for op in extra {
            txn = txn.then(op);
        }
        let answer = self.client.txn(txn).await.map_err(trouble)?;
        let mut results = answer.results.into_iter().map(|result| match result {
            OpResult::Get { kvs, .. } => kvs,
            _ => Vec::new(),
        });
        let (book, roster) = (
            results.next().unwrap_or_default(),
            results.next().unwrap_or_default(),
        );
        let book = book.first().ok_or_else(|| {
            Problem::new(
                problem::NOT_READY,
                "The network is being set up; it takes a moment.",
            )
        })?;
        let mut models = BTreeMap::new();
        for kv in results.next().unwrap_or_default() {
            models.insert(
                keys::last(&kv.key).to_owned(),
                records::read(&kv.key, &kv.bytes())?,
            );
        }
        Ok(Snapshot {
            book_revision: book.mod_revision,
            book: records::read(keys::BOOK, &book.bytes())?,
            roster_revision: roster.first().map_or(0, |kv| kv.mod_revision),
            models,
            extra: results.collect(),
        })
    }

    pub(crate) async fn commit(&self, txn: Txn) -> Result<TxnAnswer> {
        self.client.txn(txn).await.map_err(trouble)
    }
}

impl Snapshot {
    /// A change of the ledger, which holds only while nobody else has changed it.
    pub(crate) fn change(&self) -> Txn {
        Txn::new().when(Condition::unchanged(keys::BOOK, self.book_revision))
    }
}

impl ModelRecord {
    /// Whether new rounds ask it.
    pub(crate) fn takes_part(&self) -> bool {
        !self.unbonding && !self.account.ejected
    }

    pub(crate) fn status(&self) -> &'static str {
        match (self.unbonding, self.account.ejected) {
            (true, _) => "unbonding",
            (_, true) => "ejected",
            _ => "active",
        }
    }
}

/// A state that no sequence of requests can lead to: the ledger is damaged, and a person must look.
pub(crate) fn inconsistent(what: &str) -> Problem {
    Problem::internal("keep the ledger of stakes", anyhow::anyhow!("{what}"))
}
