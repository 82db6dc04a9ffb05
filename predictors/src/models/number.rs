//! Arithmetic that stays finite whatever it is given.

use serde::{Deserialize, Serialize};

/// Beyond this nothing tells one row from another, and its square is still a number.
const FAR: f64 = 1e100;

/// Brings every feature to mean 0 and deviation 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl Scale {
    pub(super) fn of(rows: &[Vec<f64>]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
        let count = rows.len() as f64;
        let features = rows.first().map_or(0, Vec::len);
        let mean = |of: &dyn Fn(&Vec<f64>) -> f64| rows.iter().map(|row| of(row) / count).sum::<f64>();
        let means: Vec<f64> = (0..features).map(|at| mean(&|row| row[at])).collect();
        let deviations = (0..features).map(|at| {
            let deviation = mean(&|row| (row[at] - means[at]).powi(2)).sqrt();
            // A feature that is always the same tells nothing, and must not divide by zero.
            if deviation.is_finite() && deviation > 0.0 {
                deviation
            } else {
                1.0
            }
        });
        Self {
            deviations: deviations.collect(),
            means,
        }
    }

    pub(super) fn fits(&self, features: usize) -> bool {
        let sound = |deviation: &f64| deviation.is_finite() && *deviation > 0.0;
        self.means.len() == features
            && self.deviations.len() == features
            && self.means.iter().all(|mean| mean.is_finite())
            && self.deviations.iter().all(sound)
    }

    pub(super) fn apply(&self, row: &[f64]) -> Vec<f64> {
        let scaled = row.iter().zip(&self.means).zip(&self.deviations);
        scaled
            .map(|((number, mean), deviation)| clamp((number - mean) / deviation))
            .collect()
    }

    pub(super) fn apply_all(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        rows.iter().map(|row| self.apply(row)).collect()
    }
}

pub(super) fn clamp(number: f64) -> f64 {
    number.clamp(-FAR, FAR)
}

pub(super) fn is_clamped(number: f64) -> bool {
    number.abs() <= FAR
}

/// Probabilities of their logarithms, up to a constant. At least one must be finite.
pub(super) fn softmax(logs: &[f64]) -> Vec<f64> {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logs.iter().map(|log| (log - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// Laplace smoothing: as if one more had been counted, with an even part of each class. So nothing is impossible, and
/// little is said that was not seen; one more of *each* class makes small leaves, and so the consensus, too unsure.
pub(super) fn smoothed(counts: &[f64]) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "there are few classes")]
    let even = 1.0 / counts.len() as f64;
    let sum = 1.0 + counts.iter().sum::<f64>();
    counts.iter().map(|count| (count + even) / sum).collect()
}

/// Whether these are shares of so many classes.
pub(super) fn are_shares(numbers: &[f64], classes: usize) -> bool {
    numbers.len() == classes && numbers.iter().all(|share| (0.0..=1.0).contains(share))
}

/// Counts as shares of their sum; even ones where nothing was counted.
pub(super) fn shares(counts: &[f64]) -> Vec<f64> {
    let sum: f64 = counts.iter().sum();
    if sum <= 0.0 {
        return smoothed(counts);
    }
    counts.iter().map(|count| count / sum).collect()
}
