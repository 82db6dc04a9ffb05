//! What a model says about a round: a probability for each class, in parts per million.
//! Invariant: a `Forecast` has at least two classes and sums to exactly one million; floats end here.

use serde::{Deserialize, Serialize};

use super::params::PPM;

/// How far from one the probabilities of a model may sum.
const SUM_SLACK: f64 = 1e-3;
/// How much of a forecast is mixed with an even one, so that nobody is ever infinitely wrong.
const SMOOTHING: f64 = 0.01;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Forecast(Vec<u32>);

/// Why an answer is no forecast. A model that gives one counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForecastFault {
    #[error("the probabilities are not as many as there are classes")]
    Length,
    #[error("a probability is not a finite number")]
    NotFinite,
    #[error("a probability is negative")]
    Negative,
    #[error("the probabilities do not sum to 1")]
    Sum,
}

impl Forecast {
    /// Takes in what a model said: checked, smoothed, and rounded by largest remainder (ties to the lower class).
    pub fn ingest(probabilities: &[f64], classes: usize) -> Result<Self, ForecastFault> {
        if probabilities.len() != classes || classes < 2 {
            return Err(ForecastFault::Length);
        }
        if probabilities.iter().any(|p| !p.is_finite()) {
            return Err(ForecastFault::NotFinite);
        }
        if probabilities.iter().any(|p| *p < 0.0) {
            return Err(ForecastFault::Negative);
        }
        let sum: f64 = probabilities.iter().sum();
        if (sum - 1.0).abs() > SUM_SLACK {
            return Err(ForecastFault::Sum);
        }
        #[expect(clippy::cast_precision_loss, reason = "there are few classes")]
        let even = SMOOTHING / classes as f64;
        let smooth = probabilities.iter().map(|p| (1.0 - SMOOTHING) * p / sum + even);
        let scaled: Vec<f64> = smooth.map(|p| p * f64::from(PPM)).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "each is between zero and a million"
        )]
        let mut parts: Vec<u32> = scaled.iter().map(|p| p.floor() as u32).collect();
        let mut order: Vec<usize> = (0..classes).collect();
        // Stable, so that ties go to the lower class.
        order.sort_by(|a, b| scaled[*b].fract().total_cmp(&scaled[*a].fract()));
        even_out(&mut parts, &order);
        Ok(Self(parts))
    }

    /// The weighted mean of forecasts, exactly. The weights must not all be zero, nor their sum exceed 2^100.
    pub(super) fn mean(voices: &[(u128, &Self)]) -> Self {
        let total: u128 = voices.iter().map(|(weight, _)| weight).sum();
        assert!(total > 0, "somebody must have weight");
        let classes = voices[0].1.0.len();
        let sums = (0..classes).map(|class| {
            let parts = voices
                .iter()
                .map(|(weight, forecast)| weight * u128::from(forecast.0[class]));
            parts.sum::<u128>()
        });
        let sums: Vec<u128> = sums.collect();
        let floors = sums.iter().map(|sum| u32::try_from(sum / total));
        let mut parts: Vec<u32> = floors.map(|part| part.expect("a mean is in bounds")).collect();
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by_key(|class| std::cmp::Reverse(sums[*class] % total));
        even_out(&mut parts, &order);
        Self(parts)
    }

    /// The most likely class; of several the lowest.
    pub fn label(&self) -> usize {
        let most = self.0.iter().max().expect("there are classes");
        let found = self.0.iter().position(|part| part == most);
        found.expect("the greatest is one of them")
    }

    pub fn ppm(&self) -> &[u32] {
        &self.0
    }

    pub fn classes(&self) -> usize {
        self.0.len()
    }

    pub fn probabilities(&self) -> Vec<f64> {
        let parts = self.0.iter();
        parts.map(|part| f64::from(*part) / f64::from(PPM)).collect()
    }

    /// Half the squared distance to the truth, in parts per million: 0 is perfect, a million is sure and wrong.
    pub(super) fn brier(&self, outcome: usize) -> u64 {
        let mut sum = 0_u64;
        for (class, part) in self.0.iter().enumerate() {
            let truth = if class == outcome { PPM } else { 0 };
            let distance = u64::from(part.abs_diff(truth));
            sum += distance * distance;
        }
        sum / (2 * u64::from(PPM))
    }
}

/// Gives what rounding down left over to those who lost most by it, or takes what is too much from the last.
fn even_out(parts: &mut [u32], order: &[usize]) {
    let given: u32 = parts.iter().sum();
    if given <= PPM {
        for class in order.iter().cycle().take((PPM - given) as usize) {
            parts[*class] += 1;
        }
        return;
    }
    // Sums of floats may end a hair above the whole; some class can give it, since together they have too much.
    let mut over = given - PPM;
    for class in order.iter().rev() {
        let taken = over.min(parts[*class]);
        parts[*class] -= taken;
        over -= taken;
    }
}

impl TryFrom<Vec<u32>> for Forecast {
    type Error = ForecastFault;

    fn try_from(parts: Vec<u32>) -> Result<Self, ForecastFault> {
        if parts.len() < 2 {
            return Err(ForecastFault::Length);
        }
        let sum: u64 = parts.iter().copied().map(u64::from).sum();
        if sum == u64::from(PPM) {
            Ok(Self(parts))
        } else {
            Err(ForecastFault::Sum)
        }
    }
}

impl From<Forecast> for Vec<u32> {
    fn from(forecast: Forecast) -> Self {
        forecast.0
    }
}
