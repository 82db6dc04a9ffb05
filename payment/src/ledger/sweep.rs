//! What runs out: holds, the marks of used tokens, and answers to idempotency keys.
//! Invariant: it is harmless on every instance at the same time, because a hold ends by the same conditional step as a
//! cancel. It is so by every clock that is right to a day: until then the mark of a token stays after the token's end,
//! since another clock may still take the token.

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::Op;
use kvstore_client::{RangeRequest, Txn};
use service::problem::Result;
use service::time::now_ms;

use super::find::decoded;
use super::resolve::Wish;
use super::{Ledger, inconsistent, keys};
use crate::domain::PaymentId;

/// So much at a time; what is left is due the next time too.
const ROWS_MAX: u32 = 500;
/// Marks and answers are removed together, up to so many in one transaction.
const OPS_MAX: usize = 64;

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

fn due(kv: &KeyValue) -> Option<Due> {
    let rest = kv.key.strip_prefix(keys::DUE)?;
    let mut parts = rest.splitn(3, '/');
    let (_at, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    match kind {
        "hold" => Some(Due::Hold(PaymentId::parse(&decoded(name)).ok()?)),
        "token" => Some(Due::Token),
        "answer" => Some(Due::Answer(name.to_owned())),
        _ => None,
    }
}

impl Ledger {
    pub(crate) async fn sweep(&self) -> Result<Swept> {
        // Read once: what is due by this clock is expired by it as well.
        let now_ms = now_ms();
        let range = RangeRequest {
            from: Some(keys::DUE.to_owned()),
            to: Some(keys::due_before(now_ms)),
            limit: Some(ROWS_MAX),
            uncounted: true,
            ..RangeRequest::default()
        };
        let page = self.read_range("sweep", range).await?;
        let mut swept = Swept {
            more: page.more,
            ..Swept::default()
        };
        let mut gone: Vec<Op> = Vec::new();
        for kv in &page.kvs {
            match due(kv) {
                Some(Due::Hold(id)) => {
                    self.resolve(&id, &Wish::Expire { now_ms }, None).await?;
                    // Mostly gone with the hold; left behind only by clocks that disagree.
                    gone.push(Op::delete(&kv.key));
                    swept.holds += 1;
                }
                Some(Due::Token) => {
                    gone.push(Op::delete(&kv.key));
                    swept.marks += 1;
                }
                Some(Due::Answer(hash)) => {
                    gone.push(Op::delete(&keys::answer(&hash)));
                    gone.push(Op::delete(&kv.key));
                    swept.marks += 1;
                }
                None => return Err(inconsistent("something is due that nobody knows")),
            }
        }
        for ops in gone.chunks(OPS_MAX) {
            let txn = ops.iter().cloned().fold(Txn::new(), Txn::then);
            self.commit("sweep", txn).await?;
        }
        Ok(swept)
    }
}
