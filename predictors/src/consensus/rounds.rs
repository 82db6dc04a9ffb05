//! Hearing all models, and opening a round with what they said.
//! Invariant: nothing of a round is told before it is stored; a round holds only models that had not begun to leave
//! when it was stored.

use kvstore_client::wire::txn::{Branch, Condition, Op, OpResult};
use service::problem::{self, Problem, Result};
use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use super::ask::{Asker, Heard};
use super::http::answers::{self, Beside};
use super::keys;
use super::network::{Bank, Snapshot, inconsistent};
use super::once::{Once, Reply};
use super::records::{self, HeardRecord, OpenRecord, RoundRecord, State, Status};
use super::room::Opener;
use crate::data::hex;
use crate::process::trouble;
use crate::stakes::{Forecast, Voice, pool};
use crate::wire::Shape;

/// Only a model that begins to leave, or a round that had to make room, makes an opening try again.
const TRIES: usize = 8;

/// What all models together say of a row.
#[derive(Clone, Debug)]
pub(crate) struct Opinion {
    pub(crate) row: Vec<f64>,
    pub(crate) heard: Vec<HeardRecord>,
    pub(crate) consensus: Forecast,
    /// As it is presented.
    pub(crate) probabilities: Vec<f64>,
    /// Stands for who took part with what.
    pub(crate) version: String,
    snapshot: Snapshot,
}

/// What a round is opened about, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) row: &'a [f64],
    /// It was asked about in a list, and is answered in one too.
    pub(crate) listed: bool,
    pub(crate) opener: &'a Opener,
}

impl Bank {
    /// Asks all models. Nothing is written.
    pub(crate) async fn opinion(&self, asker: &Asker, row: Vec<f64>) -> Result<Opinion> {
        let snapshot = self.snapshot(Vec::new()).await?;
        let asked = snapshot.models.iter().filter(|(_, model)| model.takes_part());
        let asked: Vec<(&str, &str)> = asked
            .map(|(name, model)| (name.as_str(), model.url.as_str()))
            .collect();
        let answers = asker.ask(&asked, &row).await;
        let mut voices = Vec::new();
        for heard in &answers {
            if let Ok(forecast) = &heard.forecast {
                let account = &snapshot.models[&heard.model].account;
                voices.push(Voice {
                    stake_micro: account.stake_micro,
                    trust_ppm: account.trust.ppm(self.classes),
                    forecast,
                });
            }
        }
        let pooled = pool(&self.params, &voices).ok_or_else(|| nobody(&answers))?;
        let mut heard = Vec::with_capacity(answers.len());
        let mut voice = 0;
        for answer in &answers {
            let weight = answer.forecast.is_ok().then(|| {
                voice += 1;
                (pooled.weights[voice - 1], pooled.share_ppm(voice - 1))
            });
            heard.push(self.record(&snapshot, answer, weight));
        }
        let ejected = snapshot.models.iter();
        let ejected = ejected.filter(|(_, model)| model.account.ejected && !model.unbonding);
        heard.extend(ejected.map(|(name, _)| self.ejected(&snapshot, name)));
        Ok(Opinion {
            row,
            heard,
            probabilities: snapshot.book.temperature.present(&pooled.forecast),
            consensus: pooled.forecast,
            version: version(&snapshot),
            snapshot,
        })
    }

    fn record(&self, snapshot: &Snapshot, heard: &Heard, weight: Option<(u128, u32)>) -> HeardRecord {
        let account = &snapshot.models[&heard.model].account;
        let (weight, share_ppm) = weight.unwrap_or_default();
        let absence = heard.forecast.as_ref().err();
        HeardRecord {
            model: heard.model.clone(),
            status: absence.map_or(Status::Ok, |absence| absence.status),
            reason: absence.map(|absence| absence.reason.clone()),
            forecast: heard.forecast.as_ref().ok().cloned(),
            weight: weight.to_string(),
            share_ppm,
            stake_micro: account.stake_micro,
            trust_ppm: account.trust.ppm(self.classes),
            latency_us: heard.latency_us,
        }
    }

    fn ejected(&self, snapshot: &Snapshot, name: &str) -> HeardRecord {
        let account = &snapshot.models[name].account;
        HeardRecord {
            model: name.to_owned(),
            status: Status::Ejected,
            reason: Some("its stake is below the minimum; a top-up brings it back".to_owned()),
            forecast: None,
            weight: "0".to_owned(),
            share_ppm: 0,
            stake_micro: account.stake_micro,
            trust_ppm: account.trust.ppm(self.classes),
            latency_us: 0,
        }
    }

    /// Asks all models and stores the closed round. Answers what `POST /predict` says.
    pub(crate) async fn open(
        &self,
        asker: &Asker,
        shape: &Shape,
        opening: &Opening<'_>,
        once: Option<&Once>,
    ) -> Result<Reply> {
        Once::answer(once, self, self.ask_and_store(asker, shape, opening, once)).await
    }

    async fn ask_and_store(
        &self,
        asker: &Asker,
        shape: &Shape,
        opening: &Opening<'_>,
        once: Option<&Once>,
    ) -> Result<Reply> {
        for _ in 0..TRIES {
            let opinion = self.opinion(asker, opening.row.to_vec()).await?;
            let id = random_id();
            let beside = Beside {
                round_id: Some(&id),
                listed: opening.listed,
                individuals: false,
            };
            let body = answers::opinion(shape, &opinion, &beside);
            let reply = Reply::first(201, body);
            let record = self.closed(&opinion);
            let asked = record.asked().map(|heard| heard.model.clone());
            let open = OpenRecord {
                asked: asked.collect(),
                opener: opening.opener.word().to_owned(),
            };
            let rounds_max = i64::try_from(self.config.open_rounds_max).unwrap_or(i64::MAX);
            let roster = Condition::unchanged(keys::ROSTER, opinion.snapshot.roster_revision);
            let mut txn = Once::guard(once, kvstore_client::Txn::new().when(roster))
                .then(Op::add(keys::OPEN_COUNT, 1, None, Some(rounds_max)))
                .then(Op::put(&keys::round(&id), records::write(&record)))
                .then(Op::put(&keys::open(record.expires_ms, &id), open.write()));
            // An empty branch: without it a refused add would run `else`.
            txn.0.failed.get_or_insert_default();
            let answer = self.commit(Once::keep(once, txn, self, &reply)).await?;
            match answer.branch {
                Branch::Then => return Ok(reply),
                Branch::Failed if self.make_room(opening.opener).await? => {}
                Branch::Failed => {
                    let detail = "Too many rounds wait for their outcome; report some, or ask with GET.";
                    return Err(Problem::new(problem::TOO_MANY_ROUNDS, detail));
                }
                Branch::Else => {
                    if let (Some(once), Some(OpResult::Get { kvs, .. })) = (once, answer.results.last())
                        && let Some(kv) = kvs.first()
                        && let Some(reply) = once.replay(kv)?
                    {
                        return Ok(reply);
                    }
                }
            }
        }
        Err(contended())
    }

    fn closed(&self, opinion: &Opinion) -> RoundRecord {
        let opened_ms = now_ms();
        let heard = serde_json::to_vec(&(&opinion.row, &opinion.heard, &opinion.consensus));
        let heard = heard.expect("records have only text keys and finite numbers");
        RoundRecord {
            state: State::Closed,
            row: opinion.row.clone(),
            heard: opinion.heard.clone(),
            consensus: opinion.consensus.clone(),
            probabilities: opinion.probabilities.clone(),
            sha256: hex(&Sha256::digest(&heard)),
            opened_ms,
            expires_ms: opened_ms + self.config.round_s * 1000,
            ended: None,
            outcome: None,
            receipt: None,
        }
    }

    pub(crate) async fn round(&self, id: &str) -> Result<RoundRecord> {
        let key = keys::round(checked_id(id)?);
        let kv = self.client.get(&key).await.map_err(trouble)?;
        records::read(&key, &kv.ok_or_else(unknown)?.bytes())
    }
}

/// Which round an answer to `POST /predict` speaks of.
pub(crate) fn round_of(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    body["round_id"].as_str().map(str::to_owned)
}

pub(crate) fn unknown() -> Problem {
    Problem::new(problem::ROUND_NOT_FOUND, "There is no such round.")
}

/// Others kept changing the ledger in between.
pub(crate) fn contended() -> Problem {
    let detail = "Others changed the network again and again in between. Nothing was done.";
    Problem::new(problem::OVERLOADED, detail)
}

/// What is no id was never given out.
pub(crate) fn checked_id(id: &str) -> Result<&str> {
    let sound = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if sound { Ok(id) } else { Err(unknown()) }
}

fn nobody(heard: &[Heard]) -> Problem {
    let mut absent = serde_json::Map::new();
    for heard in heard {
        if let Err(absence) = &heard.forecast {
            let reason = format!("{}: {}", absence.status.word(), absence.reason);
            absent.insert(heard.model.clone(), reason.into());
        }
    }
    let detail = "No model gave an answer that counts; `absent` says why.";
    Problem::new(problem::NO_MODELS, detail).extra("absent", absent)
}

fn version(snapshot: &Snapshot) -> String {
    let models = snapshot.models.iter().map(|(name, model)| (name, &model.account));
    let models: Vec<_> = models.collect();
    let text = serde_json::to_vec(&(models, snapshot.book.temperature)).unwrap_or_default();
    format!("sha256:{}", hex(&Sha256::digest(&text)))
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    hex(&bytes)
}

impl Opinion {
    pub(crate) fn label(&self) -> usize {
        self.consensus.label()
    }
}

impl RoundRecord {
    /// The models that were asked, for those that were not do not count as absent.
    fn asked(&self) -> impl Iterator<Item = &HeardRecord> {
        let heard = self.heard.iter();
        heard.filter(|heard| heard.status != Status::Ejected)
    }

    pub(crate) fn of_model(&self, name: &str) -> Option<&HeardRecord> {
        self.asked().find(|heard| heard.model == name)
    }

    pub(crate) fn receipt(&self) -> Result<String> {
        let receipt = self.receipt.as_ref().map(|receipt| receipt.get().to_owned());
        receipt.ok_or_else(|| inconsistent("a settled round has no receipt"))
    }
}
