//! The settings of the predictors: each model, and the consensus that they make.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `bounds`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One process that serves one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictorConfig {
    /// Of the process, and of the model in the consensus.
    pub name: String,
    pub address: String,
    /// `naive-bayes`, `knn`, `logistic`, `tree` or `forest`.
    pub model: String,
    /// A CSV file to learn from; empty for the irises that are embedded.
    #[serde(default)]
    pub table: String,
    /// The column of the labels; empty for the last.
    #[serde(default)]
    pub label: String,
    /// Columns to leave out.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// `mean` fills gaps; empty refuses them.
    #[serde(default)]
    pub impute: String,
    /// How it misbehaves, for the classroom; empty for not at all.
    #[serde(default)]
    pub behave: String,
    #[serde(default = "seed")]
    pub seed: u64,
}

fn seed() -> u64 {
    1
}

/// What all processes of the predictors have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PredictorsConfig {
    /// The largest body of a request.
    pub body_bytes_max: usize,
    /// The most rows of one request.
    pub instances_max: usize,
    /// The time a request may take.
    pub request_ms_max: u64,
    /// After so long without a sign of life an instance is no longer registered.
    pub registration_ms: u64,
}

impl Default for PredictorsConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            instances_max: 10_000,
            request_ms_max: 5000,
            registration_ms: 6000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsensusConfig {
    /// `host:port` of each instance: the first is `consensus`, the second `consensus2`.
    pub addresses: Vec<String>,
    /// What every model is asked, and what it may say.
    pub features: Vec<String>,
    pub classes: Vec<String>,
    /// The time models have to answer in a round.
    pub round_ms: u64,
    /// Hosts, or `host:port`, that registered models may be at: nothing else is ever called.
    pub model_hosts: Vec<String>,
    /// Whether models answer the consensus alone, so that nobody can copy them.
    pub private_models: bool,
    /// Whether the page may play rounds with known outcomes.
    pub demo: bool,
    pub models_max: usize,
    pub open_rounds_max: usize,
    /// How long a round waits for its outcome.
    pub round_s: u64,
    /// How long a round that has ended can be looked at.
    pub keep_s: u64,
    /// How many settlements the history holds.
    pub history_max: u64,
    /// How long answers to idempotency keys are kept.
    pub answer_s: u64,
    /// How often what has run out is looked for.
    pub sweep_every_ms: u64,
    /// The largest answer of a model.
    pub answer_bytes_max: usize,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            addresses: Vec::new(),
            features: words(&["sl", "sw", "pl", "pw"]),
            classes: words(&["setosa", "versicolor", "virginica"]),
            round_ms: 500,
            model_hosts: words(&["127.0.0.1", "localhost", "[::1]"]),
            private_models: false,
            demo: true,
            models_max: 32,
            open_rounds_max: 1000,
            round_s: 86_400,
            keep_s: 7 * 86_400,
            history_max: 10_000,
            answer_s: 86_400,
            sweep_every_ms: 5000,
            answer_bytes_max: 64 * 1024,
        }
    }
}

impl ConsensusConfig {
    /// Name and address of every instance.
    pub fn instances(&self) -> impl Iterator<Item = (String, &str)> {
        let addresses = self.addresses.iter().enumerate();
        addresses.map(|(index, address)| {
            let name = match index {
                0 => "consensus".to_owned(),
                _ => format!("consensus{}", index + 1),
            };
            (name, address.as_str())
        })
    }

    /// The address of the instance of this name.
    pub fn address(&self, name: &str) -> Option<&str> {
        let mut instances = self.instances();
        let found = instances.find(|(known, _)| known == name);
        found.map(|(_, address)| address)
    }
}

/// How a model misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Random,
    AlwaysWrong,
    /// Says what another model says.
    Copy,
    /// Never answers.
    Sleep,
    /// Is honest for so many answers, and then always wrong.
    TurnBadAfter(u64),
    /// Takes this much longer.
    SlowMs(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBehaviour;

impl fmt::Display for UnknownBehaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("must be random, always-wrong, copy, sleep, \"turn-bad-after N\" or \"slow MS\"")
    }
}

impl std::error::Error for UnknownBehaviour {}

impl FromStr for Behaviour {
    type Err = UnknownBehaviour;

    fn from_str(text: &str) -> Result<Self, UnknownBehaviour> {
        let mut words = text.split_whitespace();
        let (word, number) = (words.next(), words.next().map(str::parse));
        match (word, number, words.next()) {
            (Some("random"), None, None) => Ok(Self::Random),
            (Some("always-wrong"), None, None) => Ok(Self::AlwaysWrong),
            (Some("copy"), None, None) => Ok(Self::Copy),
            (Some("sleep"), None, None) => Ok(Self::Sleep),
            (Some("turn-bad-after"), Some(Ok(answers)), None) => Ok(Self::TurnBadAfter(answers)),
            (Some("slow"), Some(Ok(ms)), None) => Ok(Self::SlowMs(ms)),
            _ => Err(UnknownBehaviour),
        }
    }
}
