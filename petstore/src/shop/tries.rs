//! How often a name was tried of late.
//! Invariant: tries are counted in the store before the password is looked at, so that no number of instances gives a
//! guesser more of them. They are plain keys that are swept when their time is over: names are anybody's to make up,
//! and leases are few.

use kvstore_client::wire::txn::{Branch, Condition, Op};
use kvstore_client::{Txn, problem_of};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use tokio::time::Duration;

use super::Shop;
use crate::domain::Username;
use crate::store::{TriesRecord, read, write};

/// Only those who try the same name at the same time are in the way.
const MISSES_MAX: u32 = 32;

impl Shop {
    /// Counts a try at this name, or refuses it.
    pub(super) async fn count_try(&self, name: &Username) -> Result<()> {
        let keys = &self.store.keys;
        let key = keys.tried(name);
        for misses in 0..MISSES_MAX {
            let kv = self.store.client.get(&key).await.map_err(problem_of)?;
            let revision = kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let before = kv
                .map(|kv| read::<TriesRecord>(&kv.key, &kv.bytes()))
                .transpose()?;
            let (max, window_ms) = (self.config.sign_in_tries_max, self.window_ms());
            let Some(next) = counted(before, now_ms(), window_ms, max) else {
                return Err(self.tried_too_often());
            };
            let mut txn = Txn::new()
                .when(Condition::unchanged(&key, revision))
                .then(Op::put(&key, write(&next)));
            if before.is_none_or(|before| before.until_ms != next.until_ms) {
                // The end of the time before goes with it: it must not end this one as well.
                if let Some(before) = before {
                    txn = txn.then(Op::delete(&keys.due_tries(before.until_ms, name)));
                }
                txn = txn.then(Op::put(&keys.due_tries(next.until_ms, name), ""));
            }
            if self.store.commit(txn).await?.branch == Branch::Then {
                return Ok(());
            }
            let drawn = u64::from(getrandom::u32().unwrap_or(0) % 4);
            tokio::time::sleep(Duration::from_millis(drawn * u64::from(misses))).await;
        }
        Err(self.tried_too_often())
    }

    /// Success forgets the failures before it. A try that comes meanwhile stays, and what was before it.
    pub(super) async fn forget_tries(&self, name: &Username) -> Result<()> {
        let keys = &self.store.keys;
        let key = keys.tried(name);
        let Some(kv) = self.store.client.get(&key).await.map_err(problem_of)? else {
            return Ok(());
        };
        let record: TriesRecord = read(&kv.key, &kv.bytes())?;
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .then(Op::delete(&key))
            .then(Op::delete(&keys.due_tries(record.until_ms, name)));
        self.store.commit(txn).await.map(drop)
    }

    fn window_ms(&self) -> u64 {
        self.config.sign_in_window_s * 1000
    }

    fn tried_too_often(&self) -> Problem {
        Problem::new(
            problem::TOO_MANY_REQUESTS,
            "This name was tried too often; wait a while before the next try.",
        )
        .retry_after_ms(self.window_ms())
    }
}

/// One try more; `None` when there were as many as may be. The time of the first one is counted from, and it is over as
/// well when it ends further away than any clock that is nearly right can have meant.
fn counted(before: Option<TriesRecord>, now_ms: u64, window_ms: u64, max: u64) -> Option<TriesRecord> {
    let lasting = before.filter(|tries| (now_ms + 1..=now_ms + 2 * window_ms).contains(&tries.until_ms));
    match lasting {
        Some(tries) if tries.count >= max => None,
        Some(tries) => Some(TriesRecord {
            count: tries.count + 1,
            ..tries
        }),
        None => Some(TriesRecord {
            count: 1,
            until_ms: now_ms + window_ms,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_count_until_their_time_is_over() {
        let tries = |count, until_ms| TriesRecord { count, until_ms };
        for (before, after) in [
            (None, Some(tries(1, 1060))),
            (Some(tries(1, 1060)), Some(tries(2, 1060))),
            (Some(tries(2, 1001)), Some(tries(3, 1001))),
            (Some(tries(3, 1001)), None),
            // Over.
            (Some(tries(3, 1000)), Some(tries(1, 1060))),
            // By a clock that was far ahead.
            (Some(tries(3, 1121)), Some(tries(1, 1060))),
        ] {
            assert_eq!(counted(before, 1000, 60, 3), after, "{before:?}");
        }
    }
}
