//! What runs out: rounds without an outcome expire, what has ended long ago is forgotten, models that left are paid.
//! Invariant: every step is one transaction that holds only while things are as they were read, so that any number of
//! sweepers may meet.

use std::time::Duration;

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use kvstore_client::{RangeRequest, Txn};
use service::problem::Result;
use service::tasks::Tasks;
use service::time::now_ms;

use super::keys;
use super::network::Bank;
use super::records::{self, RoundRecord, State};
use crate::process::trouble;

/// Of one sweep; what is left waits for the next.
const ROWS_MAX: u32 = 500;
/// Two ops for each of them fit into one transaction.
const FORGOTTEN_AT_ONCE: usize = 60;

pub(crate) async fn run(bank: Bank, stop: Tasks) {
    let every = Duration::from_millis(bank.config.sweep_every_ms);
    while tokio::time::timeout(jitter(every), stop.stopping())
        .await
        .is_err()
    {
        let swept = tokio::select! {
            swept = bank.sweep() => swept,
            () = stop.stopping() => return,
        };
        if let Err(problem) = swept {
            tracing::debug!(%problem, "could not sweep");
        }
    }
}

/// Half of the pause is drawn, so that instances take turns.
fn jitter(pause: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    pause / 2 + (pause / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

impl Bank {
    async fn sweep(&self) -> Result<()> {
        for kv in self.due(keys::OPEN).await? {
            self.expire(&kv.key).await?;
        }
        for (prefix, record) in [
            (keys::DONE, keys::round as fn(&str) -> String),
            (keys::ANSWERS_DUE, keys::answer),
        ] {
            for some in self.due(prefix).await?.chunks(FORGOTTEN_AT_ONCE) {
                self.commit(forgetting(some, record)).await?;
            }
        }
        let snapshot = self.snapshot(Vec::new()).await?;
        for (name, model) in &snapshot.models {
            if model.unbonding {
                self.pay_out(name).await?;
            }
        }
        self.trim(snapshot.book.settlements).await
    }

    async fn due(&self, prefix: &str) -> Result<Vec<KeyValue>> {
        self.keys(prefix, keys::due_before(prefix, now_ms())).await
    }

    async fn keys(&self, from: &str, to: String) -> Result<Vec<KeyValue>> {
        let range = RangeRequest {
            from: Some(from.to_owned()),
            to: Some(to),
            limit: Some(ROWS_MAX),
            keys_only: true,
            uncounted: true,
            ..RangeRequest::default()
        };
        Ok(self.client.range(range).await.map_err(trouble)?.kvs)
    }

    /// Nobody wins or loses by a round whose outcome never came.
    pub(super) async fn expire(&self, open: &str) -> Result<()> {
        let id = keys::last(open);
        let key = keys::round(id);
        let Some(kv) = self.client.get(&key).await.map_err(trouble)? else {
            return Ok(());
        };
        let mut record: RoundRecord = records::read(&key, &kv.bytes())?;
        if record.state != State::Closed {
            return Ok(());
        }
        record.state = State::Expired;
        let kept_ms = now_ms() + self.config.keep_s * 1000;
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .then(Op::put(&key, records::write(&record)))
            .then(Op::delete(open))
            .then(Op::add(keys::OPEN_COUNT, -1, None, None))
            .then(Op::put(&keys::done(kept_ms, id), ""));
        self.commit(txn).await.map(drop)
    }

    /// Forgets the oldest of the history.
    async fn trim(&self, settlements: u64) -> Result<()> {
        let Some(end) = settlements.checked_sub(self.config.history_max) else {
            return Ok(());
        };
        for some in self.keys(keys::HISTORY, keys::history(end)).await?.chunks(100) {
            let txn = some
                .iter()
                .fold(Txn::new(), |txn, kv| txn.then(Op::delete(&kv.key)));
            self.commit(txn).await?;
        }
        Ok(())
    }
}

/// Forgets what is due under these keys, unless another has done so since they were read: by then something new may stand
/// where the old was.
fn forgetting(due: &[KeyValue], record: fn(&str) -> String) -> Txn {
    due.iter().fold(Txn::new(), |txn, kv| {
        txn.when(Condition::exists(&kv.key))
            .then(Op::delete(&record(keys::last(&kv.key))))
            .then(Op::delete(&kv.key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forgotten_that_another_has_forgotten_since() {
        let due = (0..FORGOTTEN_AT_ONCE).map(|number| KeyValue {
            key: keys::answer_due(1, &number.to_string()),
            ..KeyValue::default()
        });
        let due: Vec<KeyValue> = due.collect();
        let Txn(request) = forgetting(&due, keys::answer);
        assert_eq!(request.conditions.len(), due.len());
        assert_eq!(request.conditions[7], Condition::exists(&due[7].key));
        assert_eq!(request.then[14], Op::delete(&keys::answer("7")));
        assert_eq!(request.then[15], Op::delete(&due[7].key));
        assert!(request.then.len() <= 128, "{}", request.then.len());
    }
}
