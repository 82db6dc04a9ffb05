//! What runs out: rounds without an outcome expire, what has ended long ago is forgotten, models that left are paid.
//! Invariant: every step is one transaction that holds only while things are as they were read, so that any number of
//! sweepers may meet.

use std::collections::BTreeSet;
use std::time::Duration;

use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::txn::{Condition, Op};
use kvstore_client::{RangeRequest, Txn};
use service::problem::Result;
use service::tasks::Tasks;
use service::time::now_ms;

use super::keys;
use super::network::Bank;
use super::records::{self, Ended, RoundRecord, State};
use crate::process::trouble;

/// Of one page.
const ROWS_MAX: u32 = 500;
/// Of one step and turn; what is left waits for the next turn.
const PAGES_MAX: usize = 20;
/// Two ops for each of them fit into one transaction.
const FORGOTTEN_AT_ONCE: usize = 60;
/// Of different things that could not be swept.
const TOLD_MAX: usize = 1000;

pub(crate) async fn run(bank: Bank, stop: Tasks) {
    let every = Duration::from_millis(bank.config.sweep_every_ms);
    let mut sweeper = Sweeper {
        bank,
        told: BTreeSet::new(),
    };
    while tokio::time::timeout(jitter(every), stop.stopping())
        .await
        .is_err()
    {
        tokio::select! {
            () = sweeper.sweep() => {}
            () = stop.stopping() => return,
        }
    }
}

/// Half of the pause is drawn, so that instances take turns.
fn jitter(pause: Duration) -> Duration {
    let drawn = getrandom::u32().expect("the operating system has random bytes to give");
    pause / 2 + (pause / 2).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}

struct Sweeper {
    bank: Bank,
    /// What could not be swept, so that it is told once.
    told: BTreeSet<String>,
}

impl Sweeper {
    /// One turn. A step that cannot be done keeps none of the others from being done.
    async fn sweep(&mut self) {
        let steps = [
            self.expire().await,
            self.forget(keys::DONE, keys::round).await,
            self.forget(keys::ANSWERS_DUE, keys::answer).await,
            self.pay_and_trim().await,
        ];
        for problem in steps.into_iter().filter_map(Result::err) {
            tracing::debug!(%problem, "could not sweep all");
        }
    }

    async fn expire(&mut self) -> Result<()> {
        let mut pages = Pages::due(keys::OPEN);
        while let Some(page) = pages.next(&self.bank).await? {
            for kv in &page {
                let expired = self.bank.expire(&kv.key, Ended::Late).await;
                self.pass_over(&kv.key, expired)?;
            }
        }
        Ok(())
    }

    async fn forget(&mut self, prefix: &str, record: fn(&str) -> String) -> Result<()> {
        let mut pages = Pages::due(prefix);
        let at_once = (self.bank.ops_max / 2).clamp(1, FORGOTTEN_AT_ONCE);
        while let Some(page) = pages.next(&self.bank).await? {
            for some in page.chunks(at_once) {
                let forgotten = self.bank.commit(forgetting(some, record)).await;
                self.pass_over(&some[0].key, forgotten.map(drop))?;
            }
        }
        Ok(())
    }

    async fn pay_and_trim(&mut self) -> Result<()> {
        let snapshot = self.bank.snapshot(Vec::new()).await?;
        let leaving = snapshot.models.iter().filter(|(_, model)| model.unbonding);
        for (name, _) in leaving {
            let paid = self.bank.pay_out(name).await;
            self.pass_over(name, paid.map(drop))?;
        }
        self.trim(snapshot.book.settlements).await
    }

    /// Forgets the oldest of the history.
    async fn trim(&mut self, settlements: u64) -> Result<()> {
        let Some(end) = settlements.checked_sub(self.bank.config.history_max) else {
            return Ok(());
        };
        let mut pages = Pages::between(keys::HISTORY, keys::history(end));
        while let Some(page) = pages.next(&self.bank).await? {
            for some in page.chunks(self.bank.ops_max) {
                let txn = some
                    .iter()
                    .fold(Txn::new(), |txn, kv| txn.then(Op::delete(&kv.key)));
                let trimmed = self.bank.commit(txn).await;
                self.pass_over(&some[0].key, trimmed.map(drop))?;
            }
        }
        Ok(())
    }

    /// What cannot be done by itself is told and left; a store that is not there would be missed by all that follows.
    fn pass_over(&mut self, what: &str, done: Result<()>) -> Result<()> {
        let Err(problem) = done else { return Ok(()) };
        if problem.kind.status == 503 {
            return Err(problem);
        }
        if self.told.len() < TOLD_MAX && self.told.insert(what.to_owned()) {
            tracing::warn!(%problem, what, "could not sweep this; it is tried again each time");
        }
        Ok(())
    }
}

/// Keys, page by page.
struct Pages {
    from: String,
    to: String,
    left: usize,
}

impl Pages {
    fn due(prefix: &str) -> Self {
        Self::between(prefix, keys::due_before(prefix, now_ms()))
    }

    fn between(from: &str, to: String) -> Self {
        Self {
            from: from.to_owned(),
            to,
            left: PAGES_MAX,
        }
    }

    async fn next(&mut self, bank: &Bank) -> Result<Option<Vec<KeyValue>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let range = RangeRequest {
            from: Some(self.from.clone()),
            to: Some(self.to.clone()),
            limit: Some(ROWS_MAX),
            keys_only: true,
            uncounted: true,
            ..RangeRequest::default()
        };
        let page = bank.client.range(range).await.map_err(trouble)?;
        self.left -= 1;
        match page.kvs.last() {
            // Behind the last, also where it could not be swept. These keys are of one length: none stands between.
            Some(last) if page.more => self.from = format!("{}!", last.key),
            _ => self.left = 0,
        }
        Ok(Some(page.kvs))
    }
}

impl Bank {
    /// Nobody wins or loses by a round whose outcome never came.
    pub(super) async fn expire(&self, open: &str, ended: Ended) -> Result<()> {
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
        record.ended = Some(ended);
        let kept_ms = now_ms() + self.config.keep_s * 1000;
        let txn = Txn::new()
            .when(Condition::unchanged(&key, kv.mod_revision))
            .then(Op::put(&key, records::write(&record)))
            .then(Op::delete(open))
            .then(Op::add(keys::OPEN_COUNT, -1, None, None))
            .then(Op::put(&keys::done(kept_ms, id), ""));
        self.commit(txn).await.map(drop)
    }
}

/// Forgets what is due under these keys, unless another has done so since they were read: by then something new may
/// stand where the old was.
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
