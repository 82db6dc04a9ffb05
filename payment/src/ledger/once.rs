//! Idempotency keys: the first answer to one is written in the same transaction as what it answers.
//! Invariant: of twins that arrive together one commits, and the other reads its answer. That holds also where the work
//! was done before, without this key.
//! Keys belong to whoever sent them; neither they nor the requests can be read from what is stored.

use kvstore_client::Txn;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use payment_client::wire::DeclineCode;
use serde_json::value::RawValue;
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::records::{self, AnswerRecord};
use super::{Ledger, Reply, answers, keys};

/// One request that carries an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    /// Stands for the key and its owner.
    pub(crate) hash: String,
    /// Stands for the content of the request.
    pub(crate) fingerprint: String,
}

/// An answer that is written together with what it answers.
pub(crate) enum Kept<'a> {
    Body(u16, &'a str),
    Declined(DeclineCode),
}

impl Once {
    fn key(&self) -> String {
        keys::answer(&self.hash)
    }

    fn ops(&self, kept: &Kept<'_>, expires_ms: u64) -> [Op; 2] {
        let (status, body, decline) = match *kept {
            Kept::Body(status, body) => (status, Some(body), None),
            Kept::Declined(code) => (problem::CARD_DECLINED.status, None, Some(code)),
        };
        let body = body.map(|body| RawValue::from_string(body.to_owned()));
        let record = AnswerRecord {
            fingerprint: self.fingerprint.clone(),
            status,
            body: body.map(|body| body.expect("answers are JSON")),
            decline,
        };
        [
            Op::put(&self.key(), records::write(&record)),
            Op::put(&keys::due_answer(expires_ms, &self.hash), ""),
        ]
    }

    /// The answer given before, or the refusal of another request with the same key.
    fn replay(&self, kv: &KeyValue) -> Result<Reply> {
        let record: AnswerRecord = records::read(&kv.key, &kv.bytes())?;
        if record.fingerprint != self.fingerprint {
            return Err(Problem::new(
                problem::IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used for another request.",
            ));
        }
        match (record.decline, record.body) {
            (Some(code), _) => Err(answers::declined(code, true)),
            (None, body) => {
                let body = body.map_or_else(String::new, |body| body.get().to_owned());
                Ok(Reply::again(record.status, body))
            }
        }
    }
}

impl Ledger {
    /// The kept answer to this key, or else the refusal, which follows from what was read and writes nothing.
    /// It is looked for after that reading: what a twin has done is then never seen without its answer.
    pub(super) async fn answered_or(&self, once: Option<&Once>, refusal: Problem) -> Result<Reply> {
        let Some(once) = once else { return Err(refusal) };
        match self.read("answer", &once.key()).await? {
            Some(kv) => once.replay(&kv),
            None => Err(refusal),
        }
    }

    /// Tells of work that was done before this request came. That is the first answer to its key then, unless a twin
    /// was faster, or the key was used for something else.
    pub(super) async fn tell_again(&self, once: Option<&Once>, kept: &Kept<'_>) -> Result<Reply> {
        if once.is_some() {
            let txn = self.keep(Txn::new(), once, kept, now_ms());
            let answer = self.commit("answer", Self::guard(txn, once)).await?;
            if let Some(reply) = Self::replay_of(once, answer.got(0))? {
                return Ok(reply);
            }
        }
        match *kept {
            Kept::Body(status, body) => Ok(Reply::again(status, body.to_owned())),
            Kept::Declined(code) => Err(answers::declined(code, true)),
        }
    }

    /// Lets a transaction happen only once for this key; its `else` branch reads the answer as its last op.
    pub(super) fn guard(txn: Txn, once: Option<&Once>) -> Txn {
        match once {
            None => txn,
            Some(once) => txn
                .when(Condition::absent(&once.key()))
                .otherwise(Op::get(&once.key())),
        }
    }

    /// Keeps the answer if the transaction does what it wants to.
    pub(super) fn keep(&self, txn: Txn, once: Option<&Once>, kept: &Kept<'_>, now_ms: u64) -> Txn {
        let Some(once) = once else { return txn };
        let ops = once.ops(kept, now_ms + self.answer_ms);
        ops.into_iter().fold(txn, Txn::then)
    }

    /// Keeps the answer if an `add` is refused.
    pub(super) fn keep_failed(&self, txn: Txn, once: Option<&Once>, kept: &Kept<'_>, now_ms: u64) -> Txn {
        let Some(once) = once else { return txn };
        let ops = once.ops(kept, now_ms + self.answer_ms);
        ops.into_iter().fold(txn, Txn::failed)
    }

    /// What the `else` branch of a guarded transaction read as its last op.
    pub(super) fn replay_of(once: Option<&Once>, last: Option<&KeyValue>) -> Result<Option<Reply>> {
        match (once, last) {
            (Some(once), Some(kv)) => once.replay(kv).map(Some),
            _ => Ok(None),
        }
    }
}
