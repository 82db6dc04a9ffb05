//! What all models say together: their forecasts, weighed by stake and trust.
//! Invariant: the order of the models does not matter; one model split into several weighs as much as before.

use super::forecast::Forecast;
use super::params::{PPM, Params};

/// A model that answered.
#[derive(Clone, Copy, Debug)]
pub struct Voice<'a> {
    pub stake_micro: u64,
    pub trust_ppm: u32,
    pub forecast: &'a Forecast,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// In the order of the voices.
    pub weights: Vec<u128>,
    pub forecast: Forecast,
}

impl Pool {
    /// The weight of one voice as a share of all, in parts per million.
    pub fn share_ppm(&self, voice: usize) -> u32 {
        let total: u128 = self.weights.iter().sum();
        let share = self.weights[voice] * u128::from(PPM) / total;
        u32::try_from(share).expect("a share is at most the whole")
    }
}

/// `None` when nobody spoke, or nobody of those has any stake.
pub fn pool(params: &Params, voices: &[Voice<'_>]) -> Option<Pool> {
    let mut weights: Vec<u128> = voices.iter().map(|voice| weight(params, voice)).collect();
    if weights.iter().all(|weight| *weight == 0) {
        // Nobody has earned trust: then stake alone decides.
        weights = voices.iter().map(|voice| u128::from(voice.stake_micro)).collect();
    }
    if weights.iter().all(|weight| *weight == 0) {
        return None;
    }
    let weighed = weights.iter().zip(voices);
    let weighed: Vec<_> = weighed.map(|(weight, voice)| (*weight, voice.forecast)).collect();
    let forecast = Forecast::mean(&weighed);
    Some(Pool { weights, forecast })
}

/// Trust counts with its fourth power.
fn weight(params: &Params, voice: &Voice<'_>) -> u128 {
    let stake = u128::from(voice.stake_micro.min(params.weight_stake_micro_max));
    let trust = u128::from(voice.trust_ppm);
    stake * trust.pow(4) / 10_u128.pow(18)
}
