//! What is stored, as JSON.
//! Invariant: what was settled says everything that its answer says, so that a repetition gets the same one.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::problem::{Problem, Result};

use crate::stakes::{Account, Forecast, Temperature, Trust};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) treasury_micro: u64,
    pub(crate) temperature: Temperature,
    /// How many rounds were settled.
    pub(crate) settlements: u64,
    /// How often tokens came or went; the next time has this number.
    pub(crate) fundings: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    pub(crate) url: String,
    pub(crate) account: Account,
    /// On its way out: asked no more, but liable for the rounds that are open.
    #[serde(default)]
    pub(crate) unbonding: bool,
    pub(crate) joined_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftRecord {
    pub(crate) trust: Trust,
    /// Rounds in a row that it had missed.
    #[serde(default)]
    pub(crate) misses: u32,
    /// Whether it was ejected when it left.
    #[serde(default)]
    pub(crate) ejected: bool,
}

/// Tokens that came from outside, or went there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FundingRecord {
    pub(crate) kind: Funding,
    pub(crate) model: String,
    pub(crate) amount_micro: u64,
    pub(crate) at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Funding {
    Endowment,
    Deposit,
    Payout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Closed,
    Settled,
    Expired,
}

/// Why a round ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ended {
    /// None came in time.
    Late,
    /// As many were open as may be, and others held fewer.
    MadeRoom,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RoundRecord {
    pub(crate) state: State,
    pub(crate) row: Vec<f64>,
    pub(crate) heard: Vec<HeardRecord>,
    pub(crate) consensus: Forecast,
    /// As it was presented.
    pub(crate) probabilities: Vec<f64>,
    /// Over what was heard, the weights and the consensus.
    pub(crate) sha256: String,
    pub(crate) opened_ms: u64,
    pub(crate) expires_ms: u64,
    /// Of an expired round; rounds of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<usize>,
    /// What the report of the outcome was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) receipt: Option<Box<RawValue>>,
}

/// What is kept of a round as long as it is open: `knn,tree;OPENER`. Few bytes, since all are read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenRecord {
    /// The models that were asked.
    pub(crate) asked: Vec<String>,
    /// Empty for whoever has a token.
    pub(crate) opener: String,
}

impl OpenRecord {
    pub(crate) fn write(&self) -> String {
        format!("{};{}", self.asked.join(","), self.opener)
    }

    pub(crate) fn read(value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value);
        let (asked, opener) = value.split_once(';').unwrap_or((&value, ""));
        Self {
            asked: asked.split(',').map(str::to_owned).collect(),
            opener: opener.to_owned(),
        }
    }
}

/// What became of a model in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Timeout,
    Invalid,
    Ejected,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Ejected => "ejected",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeardRecord {
    pub(crate) model: String,
    pub(crate) status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forecast: Option<Forecast>,
    /// As a decimal, since it may be larger than numbers of JSON are exact.
    pub(crate) weight: String,
    pub(crate) share_ppm: u32,
    pub(crate) stake_micro: u64,
    pub(crate) trust_ppm: u32,
    pub(crate) latency_us: u64,
}

/// One settlement, for the plots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryRecord {
    pub(crate) settlement: u64,
    pub(crate) round: String,
    pub(crate) at_ms: u64,
    pub(crate) outcome: usize,
    pub(crate) prediction: usize,
    pub(crate) treasury_micro: u64,
    /// Name, stake and trust of every model after it.
    pub(crate) models: Vec<(String, u64, u32)>,
}

/// The first answer to an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AnswerRecord {
    pub(crate) fingerprint: String,
    pub(crate) status: u16,
    /// `None` where repeating the request answers the same by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Box<RawValue>>,
}

pub(crate) fn write(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record)
        .expect("records have only text keys and finite numbers")
        .into()
}

/// What this service wrote and cannot read is damage, and never taken for absence.
pub(crate) fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| Problem::internal(&format!("read {key}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_is_still_read() {
        let left = br#"{"trust":{"scores":1,"rounds":65536}}"#;
        let left: LeftRecord = read("left", left).unwrap();
        assert_eq!((left.misses, left.ejected), (0, false));
        let round =
            br#"{"state":"expired","row":[1],"heard":[],"consensus":[1000000,0],"probabilities":[1,0],
            "sha256":"","opened_ms":1,"expires_ms":2}"#;
        let round: RoundRecord = read("round", round).unwrap();
        assert_eq!((round.state, round.ended), (State::Expired, None));
    }
}
