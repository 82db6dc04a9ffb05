//! How far a model has earned to be believed: a Brier skill score that forgets slowly.
//! Invariant: it is between zero and one million, and a newcomer has one half.

use serde::{Deserialize, Serialize};

use super::forecast::Forecast;
use super::params::{PPM, Params};

/// Sixteen binary places.
const ONE: u64 = 1 << 16;

/// A discounted sum of Brier scores, and of the rounds they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    scores: u64,
    rounds: u64,
}

/// The score of a forecast that says nothing.
fn baseline(classes: usize) -> u64 {
    let classes = u64::try_from(classes).expect("there are few classes");
    u64::from(PPM) * (classes - 1) / (2 * classes)
}

impl Trust {
    pub fn newcomer(params: &Params, classes: usize) -> Self {
        let rounds = params.newcomer_rounds * ONE;
        Self {
            scores: rounds * (baseline(classes) / 2),
            rounds,
        }
    }

    pub fn ppm(self, classes: usize) -> u32 {
        let whole = u64::from(PPM);
        let lost = whole * (self.scores / self.rounds) / baseline(classes);
        u32::try_from(whole.saturating_sub(lost)).expect("it is at most a million")
    }

    /// After a settled round.
    #[must_use]
    pub fn learn(self, params: &Params, forecast: &Forecast, outcome: usize) -> Self {
        let shift = params.memory_shift;
        Self {
            scores: self.scores + forecast.brier(outcome) * ONE - (self.scores >> shift),
            rounds: self.rounds + ONE - (self.rounds >> shift),
        }
    }
}
