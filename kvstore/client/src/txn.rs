//! Transactions, and the two loops everyone needs: `update` (compare and set) and `add` (one round trip).
//! Invariant: `update` gives up after a bounded number of attempts and never outlives the client's deadline.

use crate::call::{self, Request, Safety};
use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::PutOptions;
use crate::wire::kv::{KeyValue, Put};
use crate::wire::txn::{
    AddOp, Comparison, Condition, GetOp, Op, OpResult, Operand, PutOp, Selector, Target, TxnAnswer,
    TxnRequest,
};
use crate::wire::{LeaseId, Revision};
use bytes::Bytes;
use reqwest::Method;
use tokio::time::{Duration, Instant};

const UPDATE_ATTEMPTS_MAX: u32 = 64;
const UPDATE_PAUSE_MAX: Duration = Duration::from_millis(50);

/// A transaction in the making: `when` all conditions hold `then` …, `otherwise` …; and if an `add`
/// of `then` would leave its bounds, `failed` in place of all of `then`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Txn(pub TxnRequest);

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn when(mut self, condition: Condition) -> Self {
        self.0.conditions.push(condition);
        self
    }

    pub fn then(mut self, op: Op) -> Self {
        self.0.then.push(op);
        self
    }

    pub fn otherwise(mut self, op: Op) -> Self {
        self.0.otherwise.push(op);
        self
    }

    /// Once called, a refused `add` no longer runs the `otherwise` branch.
    pub fn failed(mut self, op: Op) -> Self {
        self.0.failed.get_or_insert_default().push(op);
        self
    }

    fn only_reads(&self) -> bool {
        let TxnRequest {
            then,
            otherwise,
            failed,
            ..
        } = &self.0;
        let mut ops = then.iter().chain(otherwise).chain(failed.iter().flatten());
        ops.all(|op| matches!(op, Op::Get(_)))
    }
}

impl Condition {
    fn int_operand(key: &str, target: Target, op: Comparison, operand: i64) -> Self {
        Self {
            key: key.to_owned(),
            target,
            op,
            operand: Operand::Int(operand),
        }
    }

    pub fn absent(key: &str) -> Self {
        Self::int_operand(key, Target::Version, Comparison::Equal, 0)
    }

    pub fn exists(key: &str) -> Self {
        Self::int_operand(key, Target::Version, Comparison::Greater, 0)
    }

    /// The key was last written at `revision`; 0 means that it is absent.
    pub fn unchanged(key: &str, revision: Revision) -> Self {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        Self::int_operand(key, Target::Mod, Comparison::Equal, revision)
    }

    pub fn value(key: &str, op: Comparison, value: impl Into<Bytes>) -> Self {
        Self {
            key: key.to_owned(),
            target: Target::Value,
            op,
            operand: Operand::Value(value.into()),
        }
    }

    /// Compares the value as a decimal integer; an absent key counts as 0.
    pub fn int(key: &str, op: Comparison, operand: i64) -> Self {
        Self::int_operand(key, Target::Int, op, operand)
    }

    /// The key is bound to this lease; 0 means to none.
    pub fn lease(key: &str, lease: LeaseId) -> Self {
        let lease = i64::try_from(lease).unwrap_or(i64::MAX);
        Self::int_operand(key, Target::Lease, Comparison::Equal, lease)
    }
}

impl Op {
    pub fn put(key: &str, value: impl Into<Bytes>) -> Self {
        Self::Put(PutOp {
            key: key.to_owned(),
            value: value.into(),
            lease: None,
        })
    }

    pub fn put_leased(key: &str, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self::Put(PutOp {
            key: key.to_owned(),
            value: value.into(),
            lease: Some(lease),
        })
    }

    pub fn delete(key: &str) -> Self {
        Self::Delete(Selector::Key(key.to_owned()))
    }

    pub fn delete_prefix(prefix: &str) -> Self {
        Self::Delete(Selector::Prefix(prefix.to_owned()))
    }

    pub fn get(key: &str) -> Self {
        Self::Get(GetOp {
            selector: Selector::Key(key.to_owned()),
            limit: None,
        })
    }

    /// For few rows: those beyond the limit, which is bounded as that of a page is, are only counted.
    pub fn get_prefix(prefix: &str, limit: Option<u32>) -> Self {
        Self::Get(GetOp {
            selector: Selector::Prefix(prefix.to_owned()),
            limit,
        })
    }

    /// Adds to a decimal integer; refused if the result would leave `min..=max`.
    pub fn add(key: &str, by: i64, min: Option<i64>, max: Option<i64>) -> Self {
        Self::Add(AddOp {
            key: key.to_owned(),
            by,
            min,
            max,
        })
    }
}

impl KvClient {
    pub async fn txn(&self, txn: Txn) -> Result<TxnAnswer> {
        let safety = if txn.only_reads() {
            Safety::Read
        } else {
            self.keyed()
        };
        let request = Request::write(Method::POST, "/v1/txn", safety).json(&txn.0)?;
        self.call_json(request).await
    }

    /// The sum, or `None` when it would leave `min..=max` (or the value is no integer): then nothing is written.
    pub async fn add(&self, key: &str, by: i64, min: Option<i64>, max: Option<i64>) -> Result<Option<i64>> {
        let answer = self.txn(Txn::new().then(Op::add(key, by, min, max))).await?;
        match (answer.succeeded, answer.results.first()) {
            (true, Some(&OpResult::Add { value })) => Ok(Some(value)),
            (false, _) => Ok(None),
            _ => Err(Error::Protocol {
                detail: "an add that succeeded without telling the sum",
                source: None,
            }),
        }
    }

    /// Reads the key, asks `change` for the new value, and writes it if nobody wrote in between; else again.
    /// `change` answers `None` to leave the key as it is. The key stays bound to its lease.
    /// Each attempt is a write of its own, so a caller's idempotency key is not used here.
    pub async fn update<F>(&self, key: &str, mut change: F) -> Result<Option<Put>>
    where
        F: FnMut(Option<&KeyValue>) -> Option<Bytes>,
    {
        let deadline = Instant::now() + self.deadline();
        let mut pause = Duration::from_millis(1);
        for attempts in 1..=UPDATE_ATTEMPTS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            let client = self.with_own_keys().with_deadline(left);
            let present = client.get(key).await?;
            let Some(value) = change(present.as_ref()) else {
                return Ok(None);
            };
            let options = PutOptions {
                lease: present.as_ref().map(|kv| kv.lease).filter(|lease| *lease != 0),
                if_absent: present.is_none(),
                if_match: present.map(|kv| kv.mod_revision),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match client.with_deadline(left).put_with(key, value, options).await {
                Err(Error::Conflict { .. }) if Instant::now() + pause < deadline => {}
                Err(Error::Conflict { .. }) => return Err(contended(key, attempts)),
                result => return result.map(Some),
            }
            tokio::time::sleep(call::jitter(pause)).await;
            pause = (pause * 2).min(UPDATE_PAUSE_MAX);
        }
        Err(contended(key, UPDATE_ATTEMPTS_MAX))
    }
}

fn contended(key: &str, attempts: u32) -> Error {
    Error::Contended {
        key: key.to_owned(),
        attempts,
    }
}
