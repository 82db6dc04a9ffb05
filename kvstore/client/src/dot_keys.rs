//! The ways of keys that cannot stand in a path: the same promises, kept by a transaction or a range.
//! Invariant: a caller cannot tell from the result which way a key took.

use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::{PutOptions, RangeRequest, Read, ReadOptions};
use crate::txn::Txn;
use crate::wire::Revision;
use crate::wire::kv::{Deleted, KeyValue, Put};
use crate::wire::problem::Problem;
use crate::wire::txn::{Condition, Op, OpResult, PutOp, TxnAnswer};
use bytes::Bytes;

impl KvClient {
    pub(crate) async fn read_by_body(&self, key: &str, options: ReadOptions) -> Result<Read> {
        if key.is_empty() || options == ReadOptions::default() {
            let answer = self.txn(Txn::new().then(Op::get(key))).await?;
            let revision = answer.revision;
            return Ok(Read {
                kv: first_kv(answer),
                revision,
                consistency: options.consistency,
            });
        }
        // A transaction knows neither levels nor the past. A prefix sorts before all keys that go on from it.
        let page = self
            .range(RangeRequest {
                limit: Some(1),
                read: options,
                ..RangeRequest::prefix(key)
            })
            .await?;
        Ok(Read {
            kv: page.kvs.into_iter().find(|kv| kv.key == key),
            revision: page.revision,
            consistency: options.consistency,
        })
    }

    pub(crate) async fn put_by_body(&self, key: &str, value: Bytes, options: PutOptions) -> Result<Put> {
        let put = Op::Put(PutOp {
            key: key.to_owned(),
            value,
            lease: options.lease,
        });
        let mut txn = Txn::new().then(put);
        if options.if_absent {
            txn = txn.when(Condition::absent(key));
        }
        if let Some(revision) = options.if_match {
            // Without the second, the revision 0 would mean a key that is absent, which no tag does.
            txn = txn
                .when(Condition::unchanged(key, revision))
                .when(Condition::exists(key));
        }
        let answer = self.txn(txn.otherwise(Op::get(key))).await?;
        match (answer.succeeded, answer.results.first()) {
            (true, Some(&OpResult::Put { version })) => Ok(Put {
                key: key.to_owned(),
                revision: answer.revision,
                version,
                created: version == 1,
            }),
            (false, _) => Err(conflict(answer)),
            _ => Err(odd_answer()),
        }
    }

    pub(crate) async fn delete_by_body(&self, key: &str, if_match: Option<Revision>) -> Result<Deleted> {
        let mut txn = Txn::new().then(Op::delete(key)).otherwise(Op::get(key));
        if let Some(revision) = if_match {
            txn = txn
                .when(Condition::unchanged(key, revision))
                .when(Condition::exists(key));
        }
        let answer = self.txn(txn).await?;
        match (answer.succeeded, answer.results.first()) {
            (true, Some(&OpResult::Delete { deleted })) => Ok(Deleted {
                revision: answer.revision,
                deleted,
            }),
            (false, _) => Err(conflict(answer)),
            _ => Err(odd_answer()),
        }
    }
}

fn first_kv(answer: TxnAnswer) -> Option<KeyValue> {
    match answer.results.into_iter().next() {
        Some(OpResult::Get { kvs, .. }) => kvs.into_iter().next(),
        _ => None,
    }
}

/// The 412 that the key's own route would have answered.
fn conflict(answer: TxnAnswer) -> Error {
    Error::Conflict {
        revision: first_kv(answer).map(|kv| kv.mod_revision),
        source: Box::new(Problem {
            kind: "/problems/precondition-failed".to_owned(),
            title: "Precondition failed".to_owned(),
            status: 412,
            detail: "the key is not as the precondition wants it".to_owned(),
            code: "precondition-failed".to_owned(),
            ..Problem::default()
        }),
    }
}

fn odd_answer() -> Error {
    Error::Protocol {
        detail: "a transaction answered another operation than was asked",
        source: None,
    }
}
