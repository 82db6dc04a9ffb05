//! Who takes part: joining with a deposit, raising the stake, leaving.
//! Invariant: tokens come and go only here, each time with a record of it that is never changed.

use std::collections::BTreeSet;

use kvstore_client::Txn;
use kvstore_client::wire::txn::{Condition, Op, OpResult};
use reqwest::Url;
use service::problem::{self, Problem, Result};
use service::time::now_ms;

use super::http::answers;
use super::keys;
use super::network::{Bank, Snapshot};
use super::once::{Once, Reply};
use super::records::{self, Book, Funding, FundingRecord, LeftRecord, ModelRecord, OpenRecord};
use super::rounds::contended;
use super::tokens;
use crate::process::trouble;
use crate::stakes::{Account, MICRO, Temperature};

const TRIES: usize = 30;

impl Bank {
    /// Makes the book with the treasury's endowment, unless it is there.
    pub(crate) async fn found(&self) -> Result<()> {
        let mut book = Book {
            treasury_micro: self.params.endowment_micro,
            temperature: Temperature::default(),
            settlements: 0,
            fundings: 0,
        };
        let funding = fund(&mut book, Funding::Endowment, "", self.params.endowment_micro);
        let txn = Txn::new()
            .when(Condition::absent(keys::BOOK))
            .then(funding)
            .then(Op::put(keys::BOOK, records::write(&book)));
        self.commit(txn).await.map(drop)
    }

    /// Lets a model join. A name that took part before comes back with the trust and the misses it had.
    pub(crate) async fn register(
        &self,
        (name, url): (&str, &str),
        deposit_micro: u64,
        once: Option<&Once>,
    ) -> Result<Reply> {
        Once::answer(once, self, self.join((name, url), deposit_micro, once)).await
    }

    async fn join(
        &self,
        (name, url): (&str, &str),
        deposit_micro: u64,
        once: Option<&Once>,
    ) -> Result<Reply> {
        for _ in 0..TRIES {
            let mut snapshot = self.snapshot(vec![Op::get(&keys::left(name))]).await?;
            self.check_room(&snapshot, name, url)?;
            let mut account = Account::newcomer(&self.params, self.classes, deposit_micro);
            if let Some(kv) = snapshot.extra.first().and_then(|kvs| kvs.first()) {
                let left: LeftRecord = records::read(&kv.key, &kv.bytes())?;
                account = self.back(account, &left)?;
            }
            let model = ModelRecord {
                url: url.to_owned(),
                account,
                unbonding: false,
                joined_ms: now_ms(),
            };
            let mut txn = snapshot.change();
            txn = txn
                .then(Op::put(&keys::model(name), records::write(&model)))
                .then(Op::delete(&keys::left(name)))
                .then(fund(&mut snapshot.book, Funding::Deposit, name, deposit_micro));
            snapshot.models.insert(name.to_owned(), model);
            let reply = Reply::first(201, answers::model(self, &snapshot, name));
            if let Some(reply) = self.change(&snapshot, txn, once, reply).await? {
                return Ok(reply);
            }
        }
        Err(contended())
    }

    /// With what it has earned, good and bad. Who was ejected brings the whole deposit, as by a top-up.
    fn back(&self, account: Account, left: &LeftRecord) -> Result<Account> {
        let whole_micro = self.params.deposit_micro;
        if left.ejected && account.stake_micro < whole_micro {
            let whole = whole_micro / MICRO;
            let detail =
                format!("A model that was ejected comes back with the whole deposit of {whole} tokens.");
            let fault = format!("must be at least {whole} tokens, since a model of this name was ejected");
            return Err(Problem::new(problem::INVALID_REQUEST, detail).fault("/deposit", fault));
        }
        Ok(Account {
            trust: left.trust,
            misses: left.misses,
            ..account
        })
    }

    fn check_room(&self, snapshot: &Snapshot, name: &str, url: &str) -> Result<()> {
        if let Some(known) = snapshot.models.get(name) {
            return Err(if known.unbonding {
                leaving()
            } else {
                Problem::new(problem::MODEL_EXISTS, "A model of this name takes part already.")
            });
        }
        if snapshot.models.values().any(|model| model.url == url) {
            let detail = "A model at this place takes part already, under another name.";
            return Err(Problem::new(problem::MODEL_EXISTS, detail));
        }
        if snapshot.models.len() >= self.config.models_max {
            let detail = format!("No more than {} models may take part.", self.config.models_max);
            return Err(Problem::new(problem::TOO_MANY_MODELS, detail));
        }
        Ok(())
    }

    pub(crate) async fn top_up(&self, name: &str, amount_micro: u64, once: Option<&Once>) -> Result<Reply> {
        Once::answer(once, self, self.raise(name, amount_micro, once)).await
    }

    async fn raise(&self, name: &str, amount_micro: u64, once: Option<&Once>) -> Result<Reply> {
        for _ in 0..TRIES {
            let mut snapshot = self.snapshot(Vec::new()).await?;
            let model = snapshot.models.get_mut(name).ok_or_else(unknown)?;
            if model.unbonding {
                return Err(leaving());
            }
            let raised_micro = model.account.stake_micro.checked_add(amount_micro);
            if raised_micro.is_none_or(|raised_micro| raised_micro > tokens::AMOUNT_MICRO_MAX) {
                return Err(too_much());
            }
            model.account = model.account.top_up(&self.params, amount_micro);
            let put = Op::put(&keys::model(name), records::write(model));
            let funding = fund(&mut snapshot.book, Funding::Deposit, name, amount_micro);
            let txn = snapshot.change().then(put).then(funding);
            let reply = Reply::first(200, answers::model(self, &snapshot, name));
            if let Some(reply) = self.change(&snapshot, txn, once, reply).await? {
                return Ok(reply);
            }
        }
        Err(contended())
    }

    /// Asks the model no more, and pays it out at once if no open round depends on it.
    pub(crate) async fn unbond(&self, name: &str, once: Option<&Once>) -> Result<Reply> {
        let reply = Once::answer(once, self, self.leave(name, once)).await?;
        if let Err(problem) = self.pay_out(name).await {
            // The sweeper pays out what could not be paid at once.
            tracing::debug!(%problem, "a model that leaves is not paid out yet");
        }
        Ok(reply)
    }

    async fn leave(&self, name: &str, once: Option<&Once>) -> Result<Reply> {
        for _ in 0..TRIES {
            let mut snapshot = self.snapshot(Vec::new()).await?;
            let model = snapshot.models.get_mut(name).ok_or_else(unknown)?;
            let left = std::mem::replace(&mut model.unbonding, true);
            let put = Op::put(&keys::model(name), records::write(model));
            let mut txn = snapshot.change();
            let mut reply = Reply::first(200, answers::model(self, &snapshot, name));
            if left {
                // It left before, so that nothing changes but that this request has its answer.
                reply.replayed = true;
            } else {
                // Rounds that are being opened with it find this and begin again.
                txn = txn.then(put).then(Op::put(keys::ROSTER, name.to_owned()));
            }
            if left && once.is_none() {
                return Ok(reply);
            }
            if let Some(reply) = self.change(&snapshot, txn, once, reply).await? {
                return Ok(reply);
            }
        }
        Err(contended())
    }

    /// Models of the configuration are asked where it says that they are. All at once, so that two may change places.
    pub(crate) async fn relocate(&self, places: &[(&str, String)]) -> Result<()> {
        for _ in 0..TRIES {
            let mut snapshot = self.snapshot(Vec::new()).await?;
            let mut txn = snapshot.change();
            let mut moved = Vec::new();
            for (name, url) in places {
                if let Some(model) = snapshot.models.get_mut(*name)
                    && model.url != *url
                {
                    model.url.clone_from(url);
                    txn = txn.then(Op::put(&keys::model(name), records::write(model)));
                    moved.push(*name);
                }
            }
            if moved.is_empty() {
                return Ok(());
            }
            let urls: BTreeSet<&String> = snapshot.models.values().map(|model| &model.url).collect();
            if urls.len() < snapshot.models.len() {
                tracing::warn!(
                    ?moved,
                    "models have moved to where another takes part; they keep their old places"
                );
                return Ok(());
            }
            let txn = txn.then(Op::put(keys::BOOK, records::write(&snapshot.book)));
            if self.commit(txn).await?.succeeded {
                tracing::info!(?moved, "models are asked at their new places");
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Pays out a model that leaves, if no open round depends on it. Whether it did.
    pub(crate) async fn pay_out(&self, name: &str) -> Result<bool> {
        let before = self.snapshot(Vec::new()).await?;
        let leaves = before.models.get(name).is_some_and(|model| model.unbonding);
        if !leaves || self.has_open_rounds(name).await? {
            return Ok(false);
        }
        for _ in 0..TRIES {
            let mut snapshot = self.snapshot(Vec::new()).await?;
            // Whoever was paid out, came back and left again may have been asked after the open rounds were read.
            let same = snapshot.roster_revision == before.roster_revision;
            let model = snapshot.models.get(name);
            let Some(model) = model.filter(|model| same && model.unbonding) else {
                return Ok(false);
            };
            let left = LeftRecord {
                trust: model.account.trust,
                misses: model.account.misses,
                ejected: model.account.ejected,
            };
            let stake_micro = model.account.stake_micro;
            let txn = snapshot
                .change()
                .then(Op::delete(&keys::model(name)))
                .then(Op::put(&keys::left(name), records::write(&left)))
                .then(fund(&mut snapshot.book, Funding::Payout, name, stake_micro))
                .then(Op::put(keys::BOOK, records::write(&snapshot.book)));
            if self.commit(txn).await?.succeeded {
                tracing::info!(model.name = name, stake_micro, "paid out a model that left");
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an open round asked this model. Of one that was leaving before, there are only fewer of them later. Page
    /// by page: all of them may be more than one answer holds.
    async fn has_open_rounds(&self, name: &str) -> Result<bool> {
        let open = self.client.scan(keys::OPEN).await.map_err(trouble)?;
        let mut asked = open.kvs.iter().map(|kv| OpenRecord::read(&kv.bytes()).asked);
        Ok(asked.any(|asked| asked.iter().any(|asked| asked == name)))
    }

    /// Commits with the book; `None` when it was changed in between.
    async fn change(
        &self,
        snapshot: &Snapshot,
        txn: Txn,
        once: Option<&Once>,
        reply: Reply,
    ) -> Result<Option<Reply>> {
        let txn = txn.then(Op::put(keys::BOOK, records::write(&snapshot.book)));
        let txn = Once::keep(once, Once::guard(once, txn), self, &reply);
        let answer = self.client.txn(txn).await.map_err(trouble)?;
        if answer.succeeded {
            return Ok(Some(reply));
        }
        match (once, answer.results.last()) {
            (Some(once), Some(OpResult::Get { kvs, .. })) => {
                kvs.first().map_or(Ok(None), |kv| once.replay(kv))
            }
            _ => Ok(None),
        }
    }

    /// A place that may be called: `http://host:port` (or `https`), at a host that the configuration lists.
    pub(crate) fn place(&self, url: &str) -> std::result::Result<String, &'static str> {
        let url = Url::parse(url).map_err(|_error| "must be a URL such as http://127.0.0.1:5001")?;
        let plain = url.scheme() == service::http::scheme()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/";
        if !plain {
            return Err(
                "must be http://host:port (https where the processes speak TLS), without path, query or credentials",
            );
        }
        let host = url.host_str().ok_or("must name a host")?;
        let port = url.port_or_known_default().ok_or("must name a port")?;
        let place = format!("{host}:{port}");
        let hosts = &self.config.model_hosts;
        if hosts.iter().any(|allowed| allowed == host || *allowed == place) {
            return Ok(format!("{}://{place}", url.scheme()));
        }
        Err("names a host that consensus.model_hosts does not list")
    }
}

/// Numbers the movement in the book and records it.
fn fund(book: &mut Book, kind: Funding, model: &str, amount_micro: u64) -> Op {
    let number = book.fundings;
    book.fundings += 1;
    let record = FundingRecord {
        kind,
        model: model.to_owned(),
        amount_micro,
        at_ms: now_ms(),
    };
    Op::put(&keys::funding(number), records::write(&record))
}

fn unknown() -> Problem {
    Problem::new(problem::MODEL_NOT_FOUND, "No model of this name takes part.")
}

/// So that all stakes together are always a number.
fn too_much() -> Problem {
    let most = tokens::AMOUNT_MICRO_MAX / MICRO;
    let detail = format!("No stake may be raised above {most} tokens.");
    Problem::new(problem::INVALID_REQUEST, detail)
        .fault("/amount", format!("would raise it above {most} tokens"))
}

fn leaving() -> Problem {
    Problem::new(problem::MODEL_UNBONDING, "The model is on its way out.")
}
