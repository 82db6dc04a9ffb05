//! Who takes part: honest models, and those that are not.
//! Invariant: what an adversary says depends on the row, its outcome and the seed alone.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::Draw;

/// How sure an adversary claims to be.
const CLAIM: f64 = 0.97;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Five honest models.
    Honest,
    /// Four honest models and one that guesses.
    Random,
    /// Four honest models and one that always says a wrong class.
    Flipper,
    /// Three honest models and two that agree on the same wrong class.
    Collude2,
    /// Two honest models and three that agree: they own the network at first.
    Collude3,
    /// Four honest models, and one adversary under five names.
    Sybil5,
    /// Four honest models, and one that turns bad half-way.
    Drift,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Honest,
        Self::Random,
        Self::Flipper,
        Self::Collude2,
        Self::Collude3,
        Self::Sybil5,
        Self::Drift,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Random => "random",
            Self::Flipper => "flipper",
            Self::Collude2 => "collude2",
            Self::Collude3 => "collude3",
            Self::Sybil5 => "sybil5",
            Self::Drift => "drift",
        }
    }

    /// How many of the honest models take part, and how many adversaries.
    pub(super) fn cast(self) -> (usize, usize) {
        match self {
            Self::Honest => (5, 0),
            Self::Random | Self::Flipper | Self::Drift => (4, 1),
            Self::Collude2 => (3, 2),
            Self::Collude3 => (2, 3),
            Self::Sybil5 => (4, 5),
        }
    }

    /// What an adversary says; `None` as long as it says what the fifth honest model says.
    pub(super) fn claim(
        self,
        classes: usize,
        outcome: usize,
        half_way: bool,
        draw: &mut Draw,
    ) -> Option<Vec<f64>> {
        let class = match self {
            Self::Honest => return None,
            Self::Drift if !half_way => return None,
            Self::Random => draw.below(classes),
            Self::Flipper | Self::Drift | Self::Collude2 | Self::Collude3 | Self::Sybil5 => {
                (outcome + 1) % classes
            }
        };
        Some(claim(classes, class))
    }
}

/// Almost sure of one class.
pub(crate) fn claim(classes: usize, class: usize) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "there are few classes")]
    let rest = (1.0 - CLAIM) / (classes - 1) as f64;
    (0..classes)
        .map(|at| if at == class { CLAIM } else { rest })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no scenario; there are honest, random, flipper, collude2, collude3, sybil5 and drift")]
pub struct UnknownScenario;

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(word: &str) -> Result<Self, UnknownScenario> {
        let mut all = Self::ALL.into_iter();
        all.find(|scenario| scenario.word() == word)
            .ok_or(UnknownScenario)
    }
}
