//! Idempotency keys: the first answer to one is written in the same transaction as what it answers.
//! Invariant: of twins that arrive together one commits, and the other reads its answer, also where what the first has
//! done is a reason to refuse the second. Keys belong to whoever sent them; neither they nor the requests can be read
//! from what is stored.

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use kvstore_client::Txn;
use kvstore_client::wire::headers::{IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED};
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use serde_json::value::RawValue;
use service::problem::{self, Problem, Result};
use service::query;
use service::secrets::Secrets;
use service::time::now_ms;

use super::keys;
use super::network::Bank;
use super::records::{self, AnswerRecord};
use crate::pass::keyed;
use crate::process::trouble;
use crate::wire::text;

/// One request that carries an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    hash: String,
    fingerprint: String,
}

/// An answer in JSON, and whether it was given before.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) replayed: bool,
}

impl Reply {
    pub(crate) fn first(status: u16, body: String) -> Self {
        Self {
            status,
            body,
            replayed: false,
        }
    }

    pub(crate) fn again(status: u16, body: String) -> Self {
        Self {
            replayed: true,
            ..Self::first(status, body)
        }
    }

    pub(crate) fn into_answer(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("answers have valid statuses");
        let mut response = text(status, self.body);
        if self.replayed {
            let yes = axum::http::HeaderValue::from_static("true");
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, yes);
        }
        response
    }
}

impl Once {
    /// `None` unless the request carries a key.
    pub(crate) fn of(
        secrets: &Secrets,
        owner: &str,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &[u8],
    ) -> Result<Option<Self>> {
        let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(None) };
        let key = key.as_bytes();
        let sound = (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        if given.next().is_some() || !sound {
            return Err(query::malformed(
                "The header Idempotency-Key is 1 to 255 visible ASCII characters, given once.",
            ));
        }
        let path = uri.path().as_bytes();
        Ok(Some(Self {
            hash: keyed(secrets, "idempotency key", &[owner.as_bytes(), key]),
            fingerprint: keyed(secrets, "request", &[method.as_str().as_bytes(), path, body]),
        }))
    }

    /// The same for one of the steps that a request consists of, each of which happens once.
    pub(crate) fn step(&self, secrets: &Secrets, number: u64) -> Self {
        let parts: [&[u8]; 2] = [self.hash.as_bytes(), &number.to_be_bytes()];
        Self {
            hash: keyed(secrets, "step of a request", &parts),
            fingerprint: self.fingerprint.clone(),
        }
    }

    /// A number as if it were drawn, and always the same for this key.
    pub(crate) fn drawn(&self) -> u64 {
        u64::from_str_radix(&self.hash[..16], 16).expect("the hash is hexadecimal")
    }

    pub(crate) fn key(&self) -> String {
        keys::answer(&self.hash)
    }

    /// Lets a transaction happen only once; the last op of `else` reads the answer.
    pub(crate) fn guard(once: Option<&Self>, txn: Txn) -> Txn {
        match once {
            None => txn,
            Some(once) => {
                let key = once.key();
                txn.when(Condition::absent(&key)).otherwise(Op::get(&key))
            }
        }
    }

    /// Keeps the answer if the transaction does what it wants to.
    pub(crate) fn keep(once: Option<&Self>, txn: Txn, bank: &Bank, reply: &Reply) -> Txn {
        let Some(once) = once else { return txn };
        let due_ms = now_ms() + bank.config.answer_s * 1000;
        let record = AnswerRecord {
            fingerprint: once.fingerprint.clone(),
            status: reply.status,
            body: RawValue::from_string(reply.body.clone()).ok(),
        };
        txn.then(Op::put(&once.key(), records::write(&record)))
            .then(Op::put(&keys::answer_due(due_ms, &once.hash), ""))
    }

    /// The answer given before, or the refusal of another request with the same key.
    pub(crate) fn replay(&self, kv: &KeyValue) -> Result<Option<Reply>> {
        let record: AnswerRecord = records::read(&kv.key, &kv.bytes())?;
        if record.fingerprint != self.fingerprint {
            return Err(Problem::new(
                problem::IDEMPOTENCY_KEY_REUSED,
                "This Idempotency-Key was used for another request.",
            ));
        }
        let body = record.body.map(|body| body.get().to_owned());
        Ok(body.map(|body| Reply::again(record.status, body)))
    }

    /// Does the work of a request, unless it was answered before. What refuses it may be what a twin has done in
    /// between, and then the twin's answer is there: so it is looked for once more before a refusal is told.
    pub(crate) async fn answer(
        once: Option<&Self>,
        bank: &Bank,
        work: impl Future<Output = Result<Reply>>,
    ) -> Result<Reply> {
        if let Some(reply) = Self::answered(once, bank).await? {
            return Ok(reply);
        }
        match work.await {
            Err(refusal) if refusal.kind.status < 500 => Self::answered(once, bank).await?.ok_or(refusal),
            done => done,
        }
    }

    async fn answered(once: Option<&Self>, bank: &Bank) -> Result<Option<Reply>> {
        let Some(once) = once else { return Ok(None) };
        let kv = bank.client.get(&once.key()).await.map_err(trouble)?;
        kv.map_or(Ok(None), |kv| once.replay(&kv))
    }

    /// For a request that answers the same by itself when it is repeated: takes the key for it.
    pub(crate) async fn claim(once: Option<&Self>, bank: &Bank) -> Result<()> {
        let Some(once) = once else { return Ok(()) };
        let reply = Reply::first(0, String::new());
        let txn = Self::keep(Some(once), Self::guard(Some(once), Txn::new()), bank, &reply);
        let answer = bank.commit(txn).await?;
        if !answer.succeeded {
            Self::answered(Some(once), bank).await?;
        }
        Ok(())
    }
}
