//! What runs out: holds, the marks of used tokens, and answers to idempotency keys.
//! Invariant: it is harmless on every instance at the same time, because a hold ends by the same conditional step as a
//! cancel. It is so by every clock that is right to a day: until then the mark of a token stays after the token's end,
//! since another clock may still take the token.

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{RangeRequest, Txn};
use service::config::TXN_OPS_MIN;
use service::problem::Result;
use service::time::now_ms;

use super::find::decoded;
use super::resolve::Wish;
use super::{Ledger, keys};
use crate::domain::PaymentId;

/// So much at a time; what is left is due the next time too.
const ROWS_MAX: u32 = 500;
/// Entries are removed together, up to so many in one transaction: at most two operations each.
const TOGETHER_MAX: usize = 64;
const _: () = assert!(2 * TOGETHER_MAX <= TXN_OPS_MIN);
/// Whatever is then still in the way is left to the next time.
const ROUNDS_MAX: usize = 4;

/// How much was swept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) holds: u64,
    pub(crate) marks: u64,
    /// There may be more that is due already.
    pub(crate) more: bool,
}

enum Due {
    Hold(PaymentId),
    Token,
    Answer(String),
}

/// What is to be removed.
struct Gone {
    /// What said that it is due.
    entry: String,
    /// The answer that goes with it.
    answer: Option<String>,
}

impl Gone {
    fn entry(kv: &KeyValue) -> Self {
        Self {
            entry: kv.key.clone(),
            answer: None,
        }
    }
}

fn due(kv: &KeyValue) -> Option<Due> {
    let rest = kv.key.strip_prefix(keys::DUE)?;
    let mut parts = rest.splitn(3, '/');
    let (_at, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    match kind {
        "hold" => Some(Due::Hold(PaymentId::stored(decoded(name)))),
        "token" => Some(Due::Token),
        "answer" => Some(Due::Answer(name.to_owned())),
        _ => None,
    }
}

impl Ledger {
    pub(crate) async fn sweep(&self) -> Result<Swept> {
        // Read once: what is due by this clock is expired by it as well.
        let now_ms = now_ms();
        let mut range = RangeRequest {
            from: Some(keys::DUE.to_owned()),
            to: Some(keys::due_before(now_ms)),
            limit: Some(ROWS_MAX),
            uncounted: true,
            ..RangeRequest::default()
        };
        loop {
            let page = self.read_range("sweep", range.clone()).await?;
            let swept = self.sweep_rows(&page.kvs, now_ms).await?;
            // What cannot be swept stays where it is, and what is due after it must not wait for it.
            let stuck = swept == Swept::default() && page.more;
            if !stuck || page.cursor.is_none() {
                return Ok(Swept {
                    more: page.more && !stuck,
                    ..swept
                });
            }
            range.cursor = page.cursor;
        }
    }

    /// Only a store that cannot be reached ends it early; a row that is damaged is left to a person.
    async fn sweep_rows(&self, kvs: &[KeyValue], now_ms: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut gone: Vec<Gone> = Vec::new();
        for kv in kvs {
            match due(kv) {
                Some(Due::Hold(id)) => match self.resolve(&id, &Wish::Expire { now_ms }, None).await {
                    Ok(_reply) => {
                        // Mostly gone with the hold; left behind only by clocks that disagree.
                        gone.push(Gone::entry(kv));
                        swept.holds += 1;
                    }
                    Err(problem) if problem.kind.status == 503 => return Err(problem),
                    Err(problem) => skip(kv, problem.kind.code),
                },
                Some(Due::Token) => {
                    gone.push(Gone::entry(kv));
                    swept.marks += 1;
                }
                Some(Due::Answer(hash)) => {
                    gone.push(Gone {
                        answer: Some(keys::answer(&hash)),
                        ..Gone::entry(kv)
                    });
                    swept.marks += 1;
                }
                None => skip(kv, "nobody knows what it is"),
            }
        }
        for gone in gone.chunks(TOGETHER_MAX) {
            self.remove(gone.iter().collect()).await?;
        }
        Ok(swept)
    }

    /// An answer goes only together with the entry that says that it is due: when another sweep was faster, the key of
    /// that answer may have been used anew since, and has another entry then.
    async fn remove(&self, mut gone: Vec<&Gone>) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            let answer = self.commit("sweep", removal(&gone)).await?;
            if answer.branch == Branch::Then {
                break;
            }
            let mut there = (0..gone.len()).map(|op| answer.got(op).is_some());
            gone.retain(|_| there.next().unwrap_or(false));
            if gone.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// The name at the end of the key is its caller's and does not belong into a log; the rest is enough to find it.
fn skip(kv: &KeyValue, why: &str) {
    let place = kv.key.rsplit_once('/').map_or("", |(place, _name)| place);
    tracing::warn!(due.place = place, why, "left out what is due and cannot be swept");
}

/// All of it, or else a look at which entries are still there.
fn removal(gone: &[&Gone]) -> Txn {
    let mut txn = Txn::new();
    for Gone { entry, answer } in gone {
        txn = txn.then(Op::delete(entry)).otherwise(Op::get(entry));
        if let Some(answer) = answer {
            txn = txn.when(Condition::exists(entry)).then(Op::delete(answer));
        }
    }
    txn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_only_with_its_own_entry() {
        let gone = |entry: &str, answer: Option<&str>| Gone {
            entry: entry.to_owned(),
            answer: answer.map(str::to_owned),
        };
        let gone = [
            gone("due/1/token/n", None),
            gone("due/2/answer/h", Some("answer/h")),
        ];
        let txn = removal(&gone.iter().collect::<Vec<_>>());
        assert_eq!(txn.0.conditions, [Condition::exists("due/2/answer/h")]);
        let deleted = ["due/1/token/n", "due/2/answer/h", "answer/h"].map(Op::delete);
        assert_eq!(txn.0.then, deleted);
        let looked_at = ["due/1/token/n", "due/2/answer/h"].map(Op::get);
        assert_eq!(txn.0.otherwise, looked_at);
    }
}
