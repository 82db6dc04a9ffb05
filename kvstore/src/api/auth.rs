//! Who is calling, and what they may read.
//!
//! Invariant: a read is checked against the rules as they are once its read point was reached, so that a
//! change of rules is ordered with what is read; once more when what was read turns out to be newer than that. Whether a
//! write is allowed is decided when it is applied, not here.

use std::sync::Arc;

use axum::http::HeaderMap;
use service::bearer;
use service::problem::{self, Problem, Result};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout_at;

use super::{Api, reply};
use crate::command::{Access, Actor};
use crate::machine::access;
use crate::machine::state::{Token, Tokens, prefix_end};
use crate::store::{Level, ReadPoint};

/// A token that was valid when the request came.
pub(super) struct Caller {
    token: Arc<Token>,
}

pub(super) fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Looks at every token, whichever matches, so that the time tells nothing.
fn find(tokens: &Tokens, hash: &[u8; 32]) -> Option<Arc<Token>> {
    let wanted = words(hash);
    let mut found = None;
    for token in tokens.by_name.values() {
        if bool::from(words(&token.hash).ct_eq(&wanted)) {
            found = Some(token);
        }
    }
    found.cloned()
}

/// A hash in the pieces that are compared, as large as they can be: each request is compared with all tokens.
fn words(hash: &[u8; 32]) -> [u64; 4] {
    let (words, _nothing) = hash.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}

impl Api {
    /// The first thing every protected route does.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Caller> {
        let hash = hash(bearer::token(headers)?);
        // Before the tokens, which are new by the time this is over: those of a backup are not to be taken for them.
        let is_being_made = self.store.machine().is_being_made();
        match find(&self.store.tokens(), &hash) {
            Some(token) if !is_being_made => Ok(Caller { token }),
            _ => self.look_again(&hash).await,
        }
    }

    /// This node may be behind: a token is unknown only when it is so at a read index.
    async fn look_again(&self, hash: &[u8; 32]) -> Result<Caller> {
        let Ok(permit) = timeout_at(self.deadline(), self.lookups.acquire()).await else {
            let detail = "Too many unknown tokens are being looked up.";
            return Err(Problem::new(problem::OVERLOADED, detail));
        };
        let _permit = permit.expect("the semaphore is never closed");
        self.store
            .read_point(Level::Linearizable)
            .await
            .map_err(reply::read_problem)?;
        if self.store.machine().is_being_made() {
            let detail = "The cluster is still being made; it takes a moment.";
            return Err(Problem::new(problem::NOT_READY, detail));
        }
        let token = find(&self.store.tokens(), hash);
        token
            .map(|token| Caller { token })
            .ok_or_else(|| bearer::unauthorized("This token is not known here."))
    }

    /// Whether what was read is newer than its read point. Then the rules that were in force before it are known here,
    /// and must be asked again.
    pub(super) async fn is_newer(&self, point: &ReadPoint, revision: u64) -> Result<bool> {
        if revision <= point.revision {
            return Ok(false);
        }
        let published = self.store.wait_published(revision).await;
        published.map_err(reply::read_problem)?;
        Ok(true)
    }

    /// Said before anything else is looked at; whether it holds is decided when the command is applied.
    pub(super) fn root_only(&self, caller: &Caller) -> Result<()> {
        let is_root = access::is_root(&*caller.present(self)?);
        is_root.then_some(()).ok_or_else(not_root)
    }

    /// For what only root may ask and no command decides.
    pub(super) async fn root(&self, headers: &HeaderMap) -> Result<Caller> {
        let caller = self.caller(headers).await?;
        self.store
            .read_point(Level::Linearizable)
            .await
            .map_err(reply::read_problem)?;
        self.root_only(&caller)?;
        Ok(caller)
    }
}

impl Caller {
    pub(super) fn actor(&self) -> Actor {
        Actor::Token(self.token.number)
    }

    pub(super) fn name(&self) -> &str {
        &self.token.name
    }

    /// The token as this node has it now.
    pub(super) fn present(&self, api: &Api) -> Result<Arc<Token>> {
        let tokens = api.store.tokens();
        let present = tokens.by_number(self.token.number).cloned();
        present.ok_or_else(|| bearer::unauthorized("This token was removed or replaced."))
    }

    pub(super) fn may_read_key(&self, api: &Api, key: &[u8]) -> Result<()> {
        let allowed = access::allows_key(&*self.present(api)?, key, Access::Read);
        allowed.then_some(()).ok_or_else(|| not_readable("this key"))
    }

    pub(super) fn may_read_prefix(&self, api: &Api, prefix: &[u8]) -> Result<()> {
        self.may_read_range(api, prefix, prefix_end(prefix).as_deref())
    }

    pub(super) fn may_read_range(&self, api: &Api, from: &[u8], to: Option<&[u8]>) -> Result<()> {
        let allowed = access::allows_range(&*self.present(api)?, from, to, Access::Read);
        allowed
            .then_some(())
            .ok_or_else(|| not_readable("all keys of this range"))
    }
}

fn not_root() -> Problem {
    Problem::new(problem::FORBIDDEN, "Only the token `root` may do this.")
}

fn not_readable(what: &str) -> Problem {
    Problem::new(
        problem::FORBIDDEN,
        format!("The rules of this token do not let it read {what}."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_all_bits_of_its_hash() {
        let hash = |number: u8| std::array::from_fn(|at| number.wrapping_mul(31) ^ at.to_le_bytes()[0]);
        let token = |number: u8| Token {
            number: number.into(),
            name: format!("token-{number}"),
            hash: hash(number),
            rules: Vec::new(),
        };
        let named = (1..=5)
            .map(token)
            .map(|token| (token.name.clone(), Arc::new(token)));
        let tokens = Tokens {
            by_name: named.collect(),
        };
        for number in 1..=5 {
            let found = find(&tokens, &hash(number)).map(|token| token.number);
            assert_eq!(found, Some(number.into()));
            for bit in 0..256 {
                let mut other = hash(number);
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(find(&tokens, &other).is_none(), "{number} but for bit {bit}");
            }
        }
    }
}
