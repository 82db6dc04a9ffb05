//! A batch of outcomes, settled in one transaction.
//! Invariant: a round is settled once, whoever reports it and however often: its record and the book must be as they
//! were read. A batch is decided in the order in which it came, each round on the stakes that the one before left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvstore_client::wire::Revision;
use kvstore_client::wire::txn::{Condition, Op};
use serde_json::value::RawValue;
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::http::answers;
use super::keys;
use super::network::{Bank, Snapshot};
use super::once::Reply;
use super::records::{self, Ended, HistoryRecord, RoundRecord, State};
use super::rounds::{contended, unknown};
use super::settler::Report;
use crate::stakes::{Account, Side, Stand, settle};
use crate::wire::Shape;

/// What every batch writes besides models and rounds.
const OPS_A_BATCH: usize = 4;
const OPS_A_ROUND: usize = 3;
const TRIES: usize = 40;
/// After so many, an outcome that is still unknown is told.
const UNKNOWN_TRIES: usize = 3;
const PAUSE_MS_MAX: u64 = 20;

/// How many fit into one transaction beside all models, each of which any round may change.
pub(super) fn rounds_at_once(ops_max: usize, models: usize) -> usize {
    (ops_max.saturating_sub(OPS_A_BATCH + models) / OPS_A_ROUND).max(1)
}

/// A batch in the making.
struct Batch<'a> {
    bank: &'a Bank,
    shape: &'a Shape,
    snapshot: Snapshot,
    rounds: BTreeMap<String, (Revision, RoundRecord)>,
    settled: Vec<String>,
    changed: BTreeSet<String>,
    history: Vec<HistoryRecord>,
    now_ms: u64,
}

impl Bank {
    /// Settles a batch, trying again when another process was faster: the first of the reports, as many as fit. The
    /// outer error is of all of it.
    pub(super) async fn settle(&self, shape: &Shape, reports: &[Report]) -> Result<Vec<Result<Reply>>> {
        until_done(|| self.settle_once(shape, reports)).await
    }

    /// `None` when the book or a round was changed in between.
    async fn settle_once(&self, shape: &Shape, reports: &[Report]) -> Result<Option<Vec<Result<Reply>>>> {
        let ids: BTreeSet<&str> = reports.iter().map(|report| report.round.as_str()).collect();
        let gets = ids.iter().map(|id| Op::get(&keys::round(id)));
        let mut snapshot = self.snapshot(gets.collect()).await?;
        let mut rounds = BTreeMap::new();
        for (id, kvs) in ids.into_iter().zip(std::mem::take(&mut snapshot.extra)) {
            if let Some(kv) = kvs.first() {
                let record: RoundRecord = records::read(&kv.key, &kv.bytes())?;
                rounds.insert(id.to_owned(), (kv.mod_revision, record));
            }
        }
        let mut batch = Batch {
            bank: self,
            shape,
            snapshot,
            rounds,
            settled: Vec::new(),
            changed: BTreeSet::new(),
            history: Vec::new(),
            now_ms: now_ms(),
        };
        // More models may take part than the configuration says by now.
        let fit = rounds_at_once(self.ops_max, batch.snapshot.models.len());
        let reports = reports.iter().take(fit);
        let replies: Vec<Result<Reply>> = reports.map(|report| batch.decide(report)).collect();
        Ok(batch.commit().await?.then_some(replies))
    }
}

/// Tries until something is there.
async fn until_done<T, F>(mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let mut unknown: Option<Problem> = None;
    for number in 0..TRIES {
        if number > 0 {
            tokio::time::sleep(pause()).await;
        }
        match attempt().await {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
            // It may have happened or not: reading again tells, and a round is settled once.
            Err(problem) if problem.kind == problem::OUTCOME_UNKNOWN && number < UNKNOWN_TRIES => {
                unknown = Some(problem);
            }
            // Whatever stands in the way now, what was tried before may have happened.
            Err(problem) => return Err(unknown.unwrap_or(problem)),
        }
    }
    Err(unknown.unwrap_or_else(contended))
}

impl Batch<'_> {
    fn decide(&mut self, report: &Report) -> Result<Reply> {
        let (_, record) = self.rounds.get(&report.round).ok_or_else(unknown)?;
        match record.state {
            State::Settled if record.outcome == Some(report.outcome) => {
                Ok(Reply::again(200, record.receipt()?))
            }
            State::Settled => Err(Problem::new(
                problem::ROUND_SETTLED,
                "This round was settled with another outcome.",
            )),
            State::Expired if record.ended == Some(Ended::MadeRoom) => Err(made_room()),
            State::Expired => Err(expired()),
            State::Closed if record.expires_ms <= self.now_ms => Err(expired()),
            State::Closed if record.consensus.classes() != self.bank.classes => Err(of_other_classes()),
            State::Closed => self.settle(report),
        }
    }

    fn settle(&mut self, report: &Report) -> Result<Reply> {
        let (_, record) = self.rounds.get(&report.round).ok_or_else(unknown)?;
        let models = &self.snapshot.models;
        let sides: Vec<Side> = models
            .iter()
            .map(|(name, model)| Side {
                account: model.account,
                stand: stand(record, name),
            })
            .collect();
        let settled = settle(
            &self.bank.params,
            self.snapshot.book.treasury_micro,
            &sides,
            report.outcome,
        );
        let names: Vec<String> = models.keys().cloned().collect();
        let verdicts = names.iter().cloned().zip(settled.verdicts);
        let verdicts: Vec<_> = verdicts.collect();
        for (name, account) in names.iter().zip(settled.accounts) {
            self.put_account(name, account);
        }
        let (_, record) = self.rounds.get_mut(&report.round).ok_or_else(unknown)?;
        let book = &mut self.snapshot.book;
        book.treasury_micro = settled.treasury_micro;
        book.temperature = book.temperature.learn(&record.consensus, report.outcome);
        let history = HistoryRecord {
            settlement: book.settlements,
            round: report.round.clone(),
            at_ms: self.now_ms,
            outcome: report.outcome,
            prediction: record.consensus.label(),
            treasury_micro: book.treasury_micro,
            models: self
                .snapshot
                .models
                .iter()
                .map(|(name, model)| {
                    let account = &model.account;
                    (
                        name.clone(),
                        account.stake_micro,
                        account.trust.ppm(self.bank.classes),
                    )
                })
                .collect(),
        };
        book.settlements += 1;
        let receipt = answers::receipt(self.shape, &history, &verdicts, &self.snapshot.models);
        record.state = State::Settled;
        record.outcome = Some(report.outcome);
        record.receipt = RawValue::from_string(receipt.clone()).ok();
        self.settled.push(report.round.clone());
        self.history.push(history);
        Ok(Reply::first(200, receipt))
    }

    fn put_account(&mut self, name: &str, account: Account) {
        if let Some(model) = self.snapshot.models.get_mut(name)
            && model.account != account
        {
            model.account = account;
            self.changed.insert(name.to_owned());
        }
    }

    /// False when somebody else was faster.
    async fn commit(self) -> Result<bool> {
        let Some(first) = self.history.first() else {
            return Ok(true);
        };
        let mut txn = self.snapshot.change();
        let settled = i64::try_from(self.settled.len()).expect("a batch is small");
        txn = txn
            .then(Op::put(keys::BOOK, records::write(&self.snapshot.book)))
            .then(Op::put(
                &keys::history(first.settlement),
                records::write(&self.history),
            ))
            .then(Op::add(keys::OPEN_COUNT, -settled, None, None));
        for name in &self.changed {
            let model = &self.snapshot.models[name];
            txn = txn.then(Op::put(&keys::model(name), records::write(model)));
        }
        let kept_ms = self.now_ms + self.bank.config.keep_s * 1000;
        for id in &self.settled {
            let (revision, record) = &self.rounds[id];
            txn = txn
                .when(Condition::unchanged(&keys::round(id), *revision))
                .then(Op::put(&keys::round(id), records::write(record)))
                .then(Op::delete(&keys::open(record.expires_ms, id)))
                .then(Op::put(&keys::done(kept_ms, id), ""));
        }
        Ok(self.bank.commit(txn).await?.succeeded)
    }
}

fn stand(record: &RoundRecord, name: &str) -> Stand {
    match record.of_model(name) {
        None => Stand::Out,
        Some(heard) => match &heard.forecast {
            None => Stand::Absent,
            Some(forecast) => Stand::Answered {
                forecast: forecast.clone(),
                stake_micro: heard.stake_micro,
            },
        },
    }
}

fn expired() -> Problem {
    Problem::new(
        problem::ROUND_EXPIRED,
        "The outcome came too late for this round, which ended without one.",
    )
}

fn made_room() -> Problem {
    Problem::new(
        problem::ROUND_EXPIRED,
        "This round ended early, without an outcome: as many were open as may be, and it made room for another caller.",
    )
}

/// What was said of it cannot be held against any of the classes there are now.
fn of_other_classes() -> Problem {
    Problem::new(
        problem::ROUND_EXPIRED,
        "This network speaks of other classes now than when the round was opened, so it ends without an outcome.",
    )
}

/// Drawn, so that processes that met once do not meet again.
fn pause() -> Duration {
    let drawn = getrandom::u64().expect("the operating system has random bytes to give");
    Duration::from_millis(1 + drawn % PAUSE_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_a_transaction_whoever_takes_part() {
        for models in [0, 5, 32, 64] {
            let rounds = rounds_at_once(128, models);
            let ops = OPS_A_BATCH + models + rounds * OPS_A_ROUND;
            assert!((126..=128).contains(&ops), "{models} models: {ops}");
        }
        assert_eq!(rounds_at_once(10, 32), 1);
    }

    #[tokio::test]
    async fn what_may_have_happened_is_never_told_as_not_done() {
        let refused = |kind| Err(Problem::new(kind, "Nothing was done."));
        let told = async |attempts: Vec<Result<Option<u8>>>| {
            let mut attempts = attempts.into_iter();
            until_done(|| std::future::ready(attempts.next().unwrap_or(Ok(None)))).await
        };
        let unknown = || refused(problem::OUTCOME_UNKNOWN);
        let failed = told(vec![unknown(), refused(problem::NOT_READY)]).await;
        assert_eq!(failed.unwrap_err().kind, problem::OUTCOME_UNKNOWN);
        let failed = told(vec![unknown(), Ok(None)]).await;
        assert_eq!(failed.unwrap_err().kind, problem::OUTCOME_UNKNOWN);
        let failed = told(vec![Ok(None), refused(problem::NOT_READY)]).await;
        assert_eq!(failed.unwrap_err().kind, problem::NOT_READY);
        assert_eq!(told(vec![]).await.unwrap_err().kind, problem::OVERLOADED);
        assert_eq!(told(vec![unknown(), Ok(Some(1))]).await.unwrap(), 1);
    }
}
