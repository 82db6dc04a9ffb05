//! The mean loss of a logistic regression, and where it is least: for tables of many rows.
//! Invariant: the search ends. It halves a step that does not help until it changes nothing, and its looks are counted;
//! the search along a line of `linfa-logistic`, which sums over the rows, was seen to go on for ever with a million.

use std::cell::Cell;

use anyhow::Context as _;
use argmin::core::{CostFunction, Error, Executor, Gradient, State as _};
use argmin::solver::linesearch::BacktrackingLineSearch;
use argmin::solver::linesearch::condition::ArmijoCondition;
use argmin::solver::quasinewton::LBFGS;

/// Steps that are remembered.
const MEMORY: usize = 10;
const STEPS_MAX: u64 = 300;
/// Looks at the loss, all steps together. A step whose loss is no number would be halved for ever.
const LOOKS_MAX: u32 = 3000;
/// How flat the mean loss must be; chance among a million rows makes a hundred times that.
const FLAT: f64 = 1e-6;
/// How much of what the slope promises a step must keep.
const KEPT: f64 = 1e-4;

/// The mean over the rows of what a prediction costs, and a penalty for large weights.
pub(super) struct MeanLoss<'t> {
    pub(super) rows: &'t [Vec<f64>],
    /// Below `classes`.
    pub(super) labels: &'t [usize],
    pub(super) classes: usize,
    pub(super) penalty: f64,
    pub(super) looks: Cell<u32>,
}

impl MeanLoss<'_> {
    /// Of each class its intercept and its weights.
    fn width(&self) -> usize {
        1 + self.rows.first().map_or(0, Vec::len)
    }

    #[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
    fn share(&self) -> f64 {
        1.0 / self.rows.len() as f64
    }

    /// The logarithm of the probability of each class.
    fn logs(&self, weights: &[f64], row: &[f64], logs: &mut [f64]) {
        for (log, class) in logs.iter_mut().zip(weights.chunks(self.width())) {
            *log = class[0]
                + row
                    .iter()
                    .zip(&class[1..])
                    .map(|(number, weight)| number * weight)
                    .sum::<f64>();
        }
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logs.iter().map(|log| (log - most).exp()).sum();
        let all = most + sum.ln();
        for log in logs {
            *log -= all;
        }
    }

    fn penalised<'w>(&self, weights: &'w [f64]) -> impl Iterator<Item = &'w [f64]> {
        weights.chunks(self.width()).map(|class| &class[1..])
    }

    /// The weights at the least loss that was found.
    pub(super) fn least_from(self, start: Vec<f64>) -> anyhow::Result<Vec<f64>> {
        let condition = ArmijoCondition::new(KEPT)?;
        let line = BacktrackingLineSearch::new(condition);
        let solver = LBFGS::new(line, MEMORY).with_tolerance_grad(FLAT)?;
        let ended = Executor::new(self, solver)
            .configure(|state| state.param(start).max_iters(STEPS_MAX))
            .run()?;
        let best = ended.state().get_best_param().cloned();
        best.context("the search for the least loss found nothing")
    }
}

impl CostFunction for MeanLoss<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, weights: &Vec<f64>) -> Result<f64, Error> {
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() > LOOKS_MAX {
            return Err(Error::msg(
                "the loss does not become less, however small the step is",
            ));
        }
        let mut logs = vec![0.0; self.classes];
        let mut loss = 0.0;
        for (row, label) in self.rows.iter().zip(self.labels) {
            self.logs(weights, row, &mut logs);
            loss -= logs[*label];
        }
        let large: f64 = self
            .penalised(weights)
            .flatten()
            .map(|weight| weight * weight)
            .sum();
        Ok(loss * self.share() + self.penalty / 2.0 * large)
    }
}

impl Gradient for MeanLoss<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, weights: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let mut logs = vec![0.0; self.classes];
        let mut slope = vec![0.0; weights.len()];
        for (row, label) in self.rows.iter().zip(self.labels) {
            self.logs(weights, row, &mut logs);
            for (class, (slope, log)) in slope.chunks_mut(self.width()).zip(&logs).enumerate() {
                let off = (log.exp() - f64::from(u8::from(class == *label))) * self.share();
                slope[0] += off;
                slope[1..]
                    .iter_mut()
                    .zip(row)
                    .for_each(|(slope, number)| *slope += off * number);
            }
        }
        for (slope, weights) in slope.chunks_mut(self.width()).zip(self.penalised(weights)) {
            slope[1..]
                .iter_mut()
                .zip(weights)
                .for_each(|(slope, weight)| *slope += self.penalty * weight);
        }
        Ok(slope)
    }
}
