//! How sure the crowd may sound: an exponent for its probabilities that follows how often it was right.
//! Invariant: it never changes which class is the most likely, and stays in bounds. It touches no stake.

use serde::{Deserialize, Serialize};

use super::forecast::Forecast;
use super::params::PPM;

const STEP: f64 = 0.05;
const MIN: f64 = 0.5;
const MAX: f64 = 4.0;

/// In parts per million, so that what is stored is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Temperature(pub u32);

impl Default for Temperature {
    fn default() -> Self {
        Self(PPM)
    }
}

impl Temperature {
    pub fn exponent(self) -> f64 {
        (f64::from(self.0) / f64::from(PPM)).clamp(MIN, MAX)
    }

    /// The forecast as it is shown.
    pub fn present(self, forecast: &Forecast) -> Vec<f64> {
        let logs = self.logs(forecast);
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logs.iter().map(|log| (log - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    /// One step along the slope of the likelihood.
    #[must_use]
    pub fn learn(self, forecast: &Forecast, outcome: usize) -> Self {
        let shown = self.present(forecast);
        let logs: Vec<f64> = Self::default().logs(forecast);
        let expected: f64 = shown.iter().zip(&logs).map(|(p, log)| p * log).sum();
        let exponent = (self.exponent() + STEP * (logs[outcome] - expected)).clamp(MIN, MAX);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between one half and four million"
        )]
        Self((exponent * f64::from(PPM)).round() as u32)
    }

    fn logs(self, forecast: &Forecast) -> Vec<f64> {
        // What rounds to nothing is still thought possible.
        let parts = forecast.ppm().iter().map(|part| f64::from((*part).max(1)));
        let exponent = self.exponent();
        parts
            .map(|part| exponent * (part / f64::from(PPM)).ln())
            .collect()
    }
}
