//! How often a name was tried of late. What was typed as one is kept as a keyed hash: people type passwords there.
//! Invariant: tries are counted in the store before the password is looked at, so that no number of instances gives a
//! guesser more of them. A count ends with its lease and by no clock of an instance, which may be wrong; names are
//! anybody's to make up, so all that are first tried at about the same time share a lease.

use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Txn, problem_of};
use service::problem::{self, Problem, Result};
use tokio::time::Duration;

use super::Shop;
use crate::domain::Username;
use crate::store::{TriesRecord, TypedName, read, write};

/// Only those who try the same name at the same time are in the way.
const MISSES_MAX: u32 = 32;

impl Shop {
    /// Counts a try at this name, or refuses it.
    pub(super) async fn count_try(&self, name: &Username) -> Result<()> {
        let key = self.tried_key(name);
        for misses in 0..MISSES_MAX {
            let kv = self.store.client.get(&key).await.map_err(problem_of)?;
            let (revision, lease) = kv.as_ref().map_or((0, 0), |kv| (kv.mod_revision, kv.lease));
            let before = kv
                .map(|kv| read::<TriesRecord>(&kv.key, &kv.bytes()))
                .transpose()?;
            let Some(next) = counted(before, self.config.sign_in_tries_max) else {
                return Err(self.tried_too_often());
            };
            let next = write(&next);
            let put = |lease| {
                Txn::new()
                    .when(Condition::unchanged(&key, revision))
                    .then(Op::put_leased(&key, next.clone(), lease))
            };
            // It stays under the lease it has: the time of the first try is counted from.
            let answer = if lease == 0 {
                Some(self.commit_leased(&self.try_leases, put).await?)
            } else {
                self.commit_if_leased(put(lease)).await?
            };
            if answer.is_some_and(|answer| answer.branch == Branch::Then) {
                return Ok(());
            }
            let drawn = u64::from(getrandom::u32().unwrap_or(0) % 4);
            tokio::time::sleep(Duration::from_millis(drawn * u64::from(misses))).await;
        }
        Err(self.tried_too_often())
    }

    /// Success forgets the failures before it. A try that comes meanwhile stays, and what was before it.
    pub(super) async fn forget_tries(&self, name: &Username) -> Result<()> {
        let key = self.tried_key(name);
        let Some(kv) = self.store.client.get(&key).await.map_err(problem_of)? else {
            return Ok(());
        };
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .then(Op::delete(&key));
        self.store.commit(txn).await.map(drop)
    }

    fn tried_key(&self, name: &Username) -> String {
        self.store.keys.tried(&TypedName::of(&self.secret, name))
    }

    fn tried_too_often(&self) -> Problem {
        Problem::new(
            problem::TOO_MANY_REQUESTS,
            "This name was tried too often; wait a while before the next try.",
        )
        .retry_after_ms(self.config.sign_in_window_s * 1000)
    }
}

/// One try more; `None` when there were as many as may be.
fn counted(before: Option<TriesRecord>, max: u64) -> Option<TriesRecord> {
    let count = before.map_or(0, |tries| tries.count);
    if count >= max {
        return None;
    }
    Some(TriesRecord {
        count: count + 1,
        until_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_count_whatever_the_clock_says() {
        let tries = |count, until_ms| TriesRecord { count, until_ms };
        for (before, after) in [
            (None, Some(tries(1, 0))),
            (Some(tries(1, 0)), Some(tries(2, 0))),
            (Some(tries(2, 0)), Some(tries(3, 0))),
            (Some(tries(3, 0)), None),
            // As an older program counted.
            (Some(tries(2, 7)), Some(tries(3, 0))),
            (Some(tries(3, 7)), None),
        ] {
            assert_eq!(counted(before, 3), after, "{before:?}");
        }
    }
}
