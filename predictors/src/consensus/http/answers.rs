//! Puts records into the words of the contract.
//! Invariant: amounts are told twice, as decimals and as exact micro-tokens.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::consensus::network::{Bank, Snapshot};
use crate::consensus::records::{Ended, HeardRecord, HistoryRecord, ModelRecord, RoundRecord, State, Status};
use crate::consensus::rounds::Opinion;
use crate::consensus::tokens;
use crate::stakes::{Forecast, PPM, Verdict, Voice, pool};
use crate::wire::{Named, Prediction, Row, Shape};

pub(super) fn write(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("answers have only text keys and finite numbers")
}

pub(super) fn share(ppm: u32) -> f64 {
    f64::from(ppm) / f64::from(PPM)
}

/// `None` for a class that an older round speaks of and that there is no more.
fn class(shape: &Shape, number: usize) -> Option<&str> {
    shape.classes.get(number).map(String::as_str)
}

#[derive(Serialize)]
struct Individual<'a> {
    model: &'a str,
    prediction: Option<usize>,
    label: Option<&'a str>,
    probabilities: Option<Vec<f64>>,
    /// Of the whole.
    weight: f64,
    trust: f64,
    stake: Box<RawValue>,
    stake_micro: u64,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    latency_ms: f64,
}

impl<'a> Individual<'a> {
    fn of(shape: &'a Shape, heard: &'a HeardRecord) -> Self {
        let prediction = heard.forecast.as_ref().map(Forecast::label);
        Self {
            model: &heard.model,
            prediction,
            label: prediction.and_then(|number| class(shape, number)),
            probabilities: heard.forecast.as_ref().map(Forecast::probabilities),
            weight: share(heard.share_ppm),
            trust: share(heard.trust_ppm),
            stake: tokens::json(heard.stake_micro),
            stake_micro: heard.stake_micro,
            status: heard.status,
            reason: heard.reason.as_deref(),
            #[expect(clippy::cast_precision_loss, reason = "milliseconds for people to read")]
            latency_ms: heard.latency_us as f64 / 1000.0,
        }
    }
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(flatten)]
    prediction: Prediction<'a>,
    consensus_prediction: usize,
    participants: Vec<&'a str>,
    absent: Vec<&'a str>,
    absent_reasons: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_id: Option<&'a str>,
    /// As models answer a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    predictions: Option<[Prediction<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    individual_predictions: Option<Vec<Individual<'a>>>,
}

/// What is told beside what all models think together.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::consensus) struct Beside<'a> {
    pub(in crate::consensus) round_id: Option<&'a str>,
    /// The same once more, in a list of one.
    pub(in crate::consensus) listed: bool,
    /// What each of them says.
    pub(in crate::consensus) individuals: bool,
}

fn participants(heard: &[HeardRecord]) -> Vec<&str> {
    let there = heard.iter().filter(|heard| heard.status == Status::Ok);
    there.map(|heard| heard.model.as_str()).collect()
}

fn absent(heard: &[HeardRecord]) -> Vec<&HeardRecord> {
    heard.iter().filter(|heard| heard.status != Status::Ok).collect()
}

fn reasons(heard: &[HeardRecord]) -> BTreeMap<&str, String> {
    let reason = |heard: &HeardRecord| {
        let reason = heard.reason.as_deref().unwrap_or_default();
        format!("{}: {reason}", heard.status.word())
    };
    let absent = absent(heard).into_iter();
    absent
        .map(|heard| (heard.model.as_str(), reason(heard)))
        .collect()
}

/// What `GET` and `POST /predict` answer.
pub(in crate::consensus) fn opinion(shape: &Shape, opinion: &Opinion, beside: &Beside<'_>) -> String {
    let model = Named {
        name: "consensus",
        version: &opinion.version,
    };
    let said = (opinion.label(), opinion.probabilities.as_slice());
    let prediction = |request_id| Prediction {
        request_id,
        ..Prediction::new(shape, model, &opinion.row, said)
    };
    let heard = &opinion.heard;
    write(&Said {
        prediction: prediction(Some(service::edge::request_id())),
        consensus_prediction: opinion.label(),
        participants: participants(heard),
        absent: absent(heard).iter().map(|heard| heard.model.as_str()).collect(),
        absent_reasons: reasons(heard),
        round_id: beside.round_id,
        predictions: beside.listed.then(|| [prediction(None)]),
        individual_predictions: beside
            .individuals
            .then(|| heard.iter().map(|heard| Individual::of(shape, heard)).collect()),
    })
}

#[expect(clippy::struct_field_names, reason = "these are the names of the contract")]
#[derive(Serialize)]
struct Round<'a> {
    round_id: &'a str,
    id: &'a str,
    state: State,
    features: Row<'a>,
    classes: &'a [String],
    prediction: usize,
    consensus_prediction: usize,
    label: Option<&'a str>,
    probabilities: &'a [f64],
    /// Before the temperature, as it was pooled.
    pooled: Vec<f64>,
    participants: Vec<&'a str>,
    absent: Vec<&'a str>,
    absent_reasons: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    individual_predictions: Option<Vec<Individual<'a>>>,
    sha256: &'a str,
    opened_ms: u64,
    expires_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    outcome: Option<usize>,
    outcome_label: Option<&'a str>,
    receipt: Option<&'a RawValue>,
}

/// What `GET /rounds/{id}` answers.
pub(super) fn round(shape: &Shape, id: &str, record: &RoundRecord, individuals: bool) -> String {
    let prediction = record.consensus.label();
    let heard = record.heard.iter();
    write(&Round {
        round_id: id,
        id,
        state: record.state,
        features: Row {
            names: &shape.features,
            numbers: &record.row,
        },
        classes: &shape.classes,
        prediction,
        consensus_prediction: prediction,
        label: class(shape, prediction),
        probabilities: &record.probabilities,
        pooled: record.consensus.probabilities(),
        participants: participants(&record.heard),
        absent: absent(&record.heard)
            .iter()
            .map(|heard| heard.model.as_str())
            .collect(),
        absent_reasons: reasons(&record.heard),
        individual_predictions: individuals
            .then(|| heard.map(|heard| Individual::of(shape, heard)).collect()),
        sha256: &record.sha256,
        opened_ms: record.opened_ms,
        expires_ms: record.expires_ms,
        ended: record.ended,
        outcome: record.outcome,
        outcome_label: record.outcome.and_then(|number| class(shape, number)),
        receipt: record.receipt.as_deref(),
    })
}

#[derive(Serialize)]
struct Receipt<'a> {
    round_id: &'a str,
    status: &'static str,
    settlement: u64,
    outcome: usize,
    label: &'a str,
    prediction: usize,
    correct: bool,
    models: Vec<Settled<'a>>,
    treasury: Box<RawValue>,
    treasury_micro: u64,
    settled_ms: u64,
}

#[derive(Serialize)]
struct Settled<'a> {
    model: &'a str,
    /// Null for those that took no part.
    right: Option<bool>,
    wager_micro: u64,
    gained_micro: u64,
    lost_micro: u64,
    stake: Box<RawValue>,
    stake_micro: u64,
    trust: f64,
    status: &'static str,
}

/// What the report of an outcome is answered, and every repetition of it.
pub(in crate::consensus) fn receipt(
    shape: &Shape,
    history: &HistoryRecord,
    verdicts: &[(String, Verdict)],
    models: &BTreeMap<String, ModelRecord>,
) -> String {
    let verdict = |name: &str| {
        verdicts
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, verdict)| verdict)
    };
    let settled = history
        .models
        .iter()
        .filter_map(|(name, stake_micro, trust_ppm)| {
            let verdict = verdict(name)?;
            Some(Settled {
                model: name,
                right: verdict.right,
                wager_micro: verdict.wager_micro,
                gained_micro: verdict.gained_micro,
                lost_micro: verdict.lost_micro,
                stake: tokens::json(*stake_micro),
                stake_micro: *stake_micro,
                trust: share(*trust_ppm),
                status: models.get(name).map_or("left", ModelRecord::status),
            })
        });
    write(&Receipt {
        round_id: &history.round,
        status: "settled",
        settlement: history.settlement,
        outcome: history.outcome,
        label: &shape.classes[history.outcome],
        prediction: history.prediction,
        correct: history.prediction == history.outcome,
        models: settled.collect(),
        treasury: tokens::json(history.treasury_micro),
        treasury_micro: history.treasury_micro,
        settled_ms: history.at_ms,
    })
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    url: &'a str,
    stake: Box<RawValue>,
    stake_micro: u64,
    trust: f64,
    /// Its share, if all that take part answered.
    weight: f64,
    status: &'static str,
    misses: u32,
    joined_ms: u64,
}

/// In the order of their names.
fn rows<'a>(bank: &Bank, snapshot: &'a Snapshot) -> Vec<Model<'a>> {
    // Any forecast will do: only the weights are looked at.
    let even = Forecast::ingest(&vec![1.0 / float(bank.classes); bank.classes], bank.classes);
    let Ok(even) = even else { return Vec::new() };
    let speakers: Vec<&String> = snapshot
        .models
        .iter()
        .filter(|(_, model)| model.takes_part())
        .map(|(name, _)| name)
        .collect();
    let voices: Vec<Voice<'_>> = speakers
        .iter()
        .map(|name| Voice {
            stake_micro: snapshot.models[*name].account.stake_micro,
            trust_ppm: snapshot.models[*name].account.trust.ppm(bank.classes),
            forecast: &even,
        })
        .collect();
    let pooled = pool(&bank.params, &voices);
    let weight = |name: &String| {
        let voice = speakers.iter().position(|speaker| *speaker == name)?;
        Some(share(pooled.as_ref()?.share_ppm(voice)))
    };
    let models = snapshot.models.iter();
    models
        .map(|(name, model)| Model {
            name,
            url: &model.url,
            stake: tokens::json(model.account.stake_micro),
            stake_micro: model.account.stake_micro,
            trust: share(model.account.trust.ppm(bank.classes)),
            weight: weight(name).unwrap_or(0.0),
            status: model.status(),
            misses: model.account.misses,
            joined_ms: model.joined_ms,
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "there are few classes")]
fn float(count: usize) -> f64 {
    count as f64
}

pub(super) fn models(bank: &Bank, snapshot: &Snapshot) -> String {
    write(&rows(bank, snapshot))
}

/// One of them; `null` if it is not there, which whoever asks has seen to.
pub(in crate::consensus) fn model(bank: &Bank, snapshot: &Snapshot, name: &str) -> String {
    let rows = rows(bank, snapshot);
    write(&rows.iter().find(|model| model.name == name))
}
