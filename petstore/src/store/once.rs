//! Idempotency keys: the first answer to one is written in the same transaction as what it answers.
//! Invariant: of twins that arrive together one commits, and the other reads its answer. A refusal that changed
//! nothing is not kept: the same request may do better later.
//! Keys belong to whoever sent them; neither they nor the requests can be read from what is stored.

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use kvstore_client::{RangeRequest, Txn, problem_of};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::config::TXN_OPS_MIN;
use service::problem::{self, Problem, Result};
use service::secrets::Secret;
use service::time::now_ms;

use super::keyed::keyed;
use super::{Keys, Store, records};

/// What has run out is removed in portions: so many rows are looked at, so many removed in one transaction.
const SWEEP_ROWS: u32 = 500;
const SWEEP_AT_ONCE: usize = 50;
const _: () = assert!(2 * SWEEP_AT_ONCE <= TXN_OPS_MIN);

/// One request that carries an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    /// Stands for the key and its owner.
    hash: String,
    /// The same as an instance of before says it, that may have kept the answer.
    earlier: Option<String>,
    /// Stands for the content of the request.
    fingerprint: String,
}

/// An answer that a route gives, and whether it was given before.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) kept: Kept,
    pub(crate) replayed: bool,
    /// Of what was written, if that has one.
    pub(crate) etag: Option<u64>,
}

/// An answer as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    /// The user and the order that was made: what became of it is looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<(String, String)>,
    /// The revision in which it was kept, together with what it answers: the store knows it, and only once that is done.
    #[serde(skip)]
    pub(crate) revision: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct AnswerRecord {
    fingerprint: String,
    kept: Kept,
}

impl Kept {
    pub(crate) fn json(status: u16, body: &impl Serialize) -> Self {
        let body =
            serde_json::value::to_raw_value(body).expect("answers have only text keys and plain values");
        Self {
            status,
            body: Some(body),
            location: None,
            order: None,
            revision: None,
        }
    }

    pub(crate) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    pub(crate) fn of_order(user: &str, order: &str) -> Self {
        Self {
            status: 201,
            body: None,
            location: None,
            order: Some((user.to_owned(), order.to_owned())),
            revision: None,
        }
    }
}

impl Reply {
    pub(crate) fn first(kept: Kept) -> Self {
        Self {
            kept,
            replayed: false,
            etag: None,
        }
    }
}

impl Once {
    /// `key` belongs to `owner`; `parts` are what makes the request the same one.
    pub(crate) fn new(secret: &Secret, owner: &str, key: &[u8], parts: &[&[u8]]) -> Self {
        Self {
            hash: keyed(secret, "shop answer", &[owner.as_bytes(), key]),
            earlier: None,
            fingerprint: keyed(secret, "shop request", parts),
        }
    }

    /// An answer that was kept while all strangers were one owner is told again too.
    pub(crate) fn of_stranger(self, secret: &Secret, key: &[u8]) -> Self {
        let earlier = keyed(secret, "shop answer", &[b"nobody", key]);
        Self {
            earlier: Some(earlier),
            ..self
        }
    }

    fn replay(&self, kv: &KeyValue) -> Result<Kept> {
        let record: AnswerRecord = records::read(&kv.key, &kv.bytes())?;
        if record.fingerprint == self.fingerprint {
            return Ok(Kept {
                revision: Some(kv.mod_revision),
                ..record.kept
            });
        }
        Err(Problem::new(
            problem::IDEMPOTENCY_KEY_REUSED,
            "This Idempotency-Key was used for another request.",
        ))
    }
}

impl Store {
    /// The answer that is kept for this key.
    pub(crate) async fn answered(&self, once: Option<&Once>) -> Result<Option<Kept>> {
        let Some(once) = once else { return Ok(None) };
        let kv = self.client.get(&self.keys.answer(&once.hash)).await;
        if let Some(kv) = kv.map_err(problem_of)? {
            return once.replay(&kv).map(Some);
        }
        let Some(earlier) = &once.earlier else {
            return Ok(None);
        };
        let kv = self.client.get(&self.keys.answer(earlier)).await;
        // Under the same key, that of another stranger is none of this one's business.
        Ok(kv.map_err(problem_of)?.and_then(|kv| once.replay(&kv).ok()))
    }

    /// Lets a transaction happen only once for this key; its `else` branch reads the answer as its last op.
    pub(crate) fn guard(&self, txn: Txn, once: Option<&Once>) -> Txn {
        let Some(once) = once else { return txn };
        let key = self.keys.answer(&once.hash);
        txn.when(Condition::absent(&key)).otherwise(Op::get(&key))
    }

    /// Keeps the answer if the transaction does what it wants to.
    pub(crate) fn keep(&self, txn: Txn, once: Option<&Once>, kept: &Kept) -> Txn {
        self.keep_until(txn, once, kept, now_ms() + self.answer_ms).0
    }

    /// As `keep`; also tells the keys that would have to go with the answer.
    pub(crate) fn keep_until(
        &self,
        txn: Txn,
        once: Option<&Once>,
        kept: &Kept,
        until_ms: u64,
    ) -> (Txn, Vec<String>) {
        let Some(once) = once else {
            return (txn, Vec::new());
        };
        let record = AnswerRecord {
            fingerprint: once.fingerprint.clone(),
            kept: kept.clone(),
        };
        let answer = self.keys.answer(&once.hash);
        let due = self.keys.due_answer(until_ms, &once.hash);
        let txn = txn
            .then(Op::put(&answer, records::write(&record)))
            .then(Op::put(&due, ""));
        (txn, vec![answer, due])
    }

    pub(crate) fn answer_ms(&self) -> u64 {
        self.answer_ms
    }

    /// What the `else` branch of a guarded transaction read as its last op.
    pub(crate) fn replay_of(once: Option<&Once>, last: Option<&KeyValue>) -> Result<Option<Kept>> {
        match (once, last) {
            (Some(once), Some(kv)) => once.replay(kv).map(Some),
            _ => Ok(None),
        }
    }

    /// Removes answers and notices that have run out; whether there may be more.
    pub(crate) async fn sweep(&self) -> Result<bool> {
        let range = RangeRequest {
            from: Some(self.keys.due()),
            to: Some(self.keys.due_before(now_ms())),
            limit: Some(SWEEP_ROWS),
            uncounted: true,
            ..RangeRequest::default()
        };
        let page = self.client.range(range).await.map_err(problem_of)?;
        for due in page.kvs.chunks(SWEEP_AT_ONCE) {
            self.commit(removal(&self.keys, due)).await?;
        }
        Ok(page.more)
    }
}

/// Takes away what is due. Whoever was faster has taken the key that says so as well, and by now there may be a newer
/// answer to the same idempotency key: then nothing is done, and what is left is found the next time.
fn removal(keys: &Keys, due: &[KeyValue]) -> Txn {
    due.iter().fold(Txn::new(), |txn, kv| {
        let txn = txn.when(Condition::exists(&kv.key)).then(Op::delete(&kv.key));
        match keys.ends_with(&kv.key) {
            Some(key) => txn.then(Op::delete(&key)),
            None => txn,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_still_due_is_taken_away() {
        let keys = Keys::of_shop("one");
        let due = ["a", "b"].map(|hash| KeyValue {
            key: keys.due_answer(7, hash),
            ..KeyValue::default()
        });
        let Txn(removal) = removal(&keys, &due);
        let still = due.iter().map(|kv| Condition::exists(&kv.key));
        assert_eq!(removal.conditions, still.collect::<Vec<_>>());
        let gone = ["a", "b"].map(|hash| [keys.due_answer(7, hash), keys.answer(hash)]);
        let gone = gone.iter().flatten().map(|key| Op::delete(key));
        assert_eq!(removal.then, gone.collect::<Vec<_>>());
        assert!(removal.otherwise.is_empty());
    }
}
