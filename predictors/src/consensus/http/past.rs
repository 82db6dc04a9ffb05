//! Puts the settlements of the past into the words of the contract.
//! Invariant: as in `answers`, amounts are told twice.

use serde::Serialize;
use serde_json::value::RawValue;

use super::answers::{share, write};
use crate::consensus::records::HistoryRecord;
use crate::consensus::tokens;

#[derive(Serialize)]
struct Past<'a> {
    settlement: u64,
    round_id: &'a str,
    at_ms: u64,
    outcome: usize,
    prediction: usize,
    correct: bool,
    treasury: Box<RawValue>,
    treasury_micro: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Vec<PastModel<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stake: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stake_micro: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<f64>,
}

#[derive(Serialize)]
struct PastModel<'a> {
    name: &'a str,
    stake: Box<RawValue>,
    stake_micro: u64,
    trust: f64,
}

/// What `GET /history` answers: of all models, or flat of one.
pub(super) fn history(rows: &[HistoryRecord], model: Option<&str>) -> String {
    let past = rows.iter().filter_map(|row| {
        let one = match model {
            Some(wanted) => Some(row.models.iter().find(|(name, _, _)| name == wanted)?),
            None => None,
        };
        let all = row.models.iter().map(|(name, stake_micro, trust_ppm)| PastModel {
            name,
            stake: tokens::json(*stake_micro),
            stake_micro: *stake_micro,
            trust: share(*trust_ppm),
        });
        Some(Past {
            settlement: row.settlement,
            round_id: &row.round,
            at_ms: row.at_ms,
            outcome: row.outcome,
            prediction: row.prediction,
            correct: row.outcome == row.prediction,
            treasury: tokens::json(row.treasury_micro),
            treasury_micro: row.treasury_micro,
            models: model.is_none().then(|| all.collect()),
            model: one.map(|(name, _, _)| name.as_str()),
            stake: one.map(|(_, stake_micro, _)| tokens::json(*stake_micro)),
            stake_micro: one.map(|(_, stake_micro, _)| *stake_micro),
            trust: one.map(|(_, _, trust_ppm)| share(*trust_ppm)),
        })
    });
    write(&past.collect::<Vec<_>>())
}
