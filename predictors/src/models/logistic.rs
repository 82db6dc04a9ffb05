//! Multinomial logistic regression on standardised features; of a large table the mean loss is what is made least.
//! Invariant: one row of weights for each class that was seen.

use std::cell::Cell;

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_logistic::MultiLogisticRegression;
use serde::{Deserialize, Serialize};

use super::fitted::{labels, matrix};
use super::mean_loss::MeanLoss;
use super::number::{Scale, softmax};
use crate::data::Table;

const PENALTY: f64 = 1.0;
const STEPS_MAX: u64 = 300;
/// How flat the loss must be to stop, for so many rows. It is a sum over the rows: what is flat for a hundred of them
/// is never reached for thousands, and all steps would be taken.
const FLAT: f64 = 1e-4;
const FLAT_ROWS: f64 = 150.0;
/// With more rows the sum is so large that the crate's search along a line was seen to go on for ever.
const SUM_ROWS_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Logistic {
    scale: Scale,
    /// `None` for a class that no row had.
    classes: Vec<Option<Class>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Class {
    intercept: f64,
    weights: Vec<f64>,
}

impl Logistic {
    pub(super) fn fit(table: &Table) -> anyhow::Result<Self> {
        let scale = Scale::of(&table.rows);
        let classes = if table.len() <= SUM_ROWS_MAX {
            fit_sum(table, &scale)?
        } else {
            fit_mean(table, &scale)?
        };
        Ok(Self { scale, classes })
    }

    pub(super) fn fits(&self, features: usize, classes: usize) -> bool {
        let mut seen = self.classes.iter().flatten();
        let sound = |class: &Class| class.weights.len() == features;
        self.scale.fits(features)
            && self.classes.len() == classes
            && self.classes.iter().any(Option::is_some)
            && seen.all(sound)
    }

    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        let scaled = self.scale.apply(row);
        let logs: Vec<f64> = self
            .classes
            .iter()
            .map(|class| {
                class
                    .as_ref()
                    .map_or(f64::NEG_INFINITY, |class| class.log(&scaled))
            })
            .collect();
        softmax(&logs)
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
fn fit_sum(table: &Table, scale: &Scale) -> anyhow::Result<Vec<Option<Class>>> {
    let dataset = Dataset::new(matrix(&scale.apply_all(&table.rows)), labels(table));
    let model = MultiLogisticRegression::default()
        .alpha(PENALTY)
        .max_iterations(STEPS_MAX)
        .gradient_tolerance(FLAT * (table.len() as f64 / FLAT_ROWS).max(1.0))
        .fit(&dataset)
        .context("fit the logistic regression")?;
    let mut classes = vec![None; table.classes.len()];
    for (column, class) in model.classes().iter().enumerate() {
        classes[*class] = Some(Class {
            intercept: model.intercept()[column],
            weights: model.params().column(column).to_vec(),
        });
    }
    Ok(classes)
}

#[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
fn fit_mean(table: &Table, scale: &Scale) -> anyhow::Result<Vec<Option<Class>>> {
    let counts = table.counts();
    let seen: Vec<usize> = (0..counts.len()).filter(|class| counts[*class] > 0).collect();
    // Where each class stands among those that were seen.
    let places: Vec<usize> = (0..counts.len())
        .map(|class| seen.iter().take_while(|one| **one < class).count())
        .collect();
    let features = table.features.len();
    let labels: Vec<usize> = table.labels.iter().map(|label| places[*label]).collect();
    let loss = MeanLoss {
        rows: &scale.apply_all(&table.rows),
        labels: &labels,
        classes: seen.len(),
        penalty: PENALTY / table.len() as f64,
        looks: Cell::new(0),
    };
    let weights = loss
        .least_from(vec![0.0; seen.len() * (1 + features)])
        .context("fit the logistic regression")?;
    let mut classes = vec![None; table.classes.len()];
    for (class, weights) in seen.iter().zip(weights.chunks(1 + features)) {
        classes[*class] = Some(Class {
            intercept: weights[0],
            weights: weights[1..].to_vec(),
        });
    }
    Ok(classes)
}

impl Class {
    fn log(&self, scaled: &[f64]) -> f64 {
        let terms = scaled
            .iter()
            .zip(&self.weights)
            .map(|(number, weight)| number * weight);
        self.intercept + terms.sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::data::{CsvOptions, Draw, read_csv};

    /// Two overlapping kinds, and a third that only few rows have.
    fn overlapping(rows: usize) -> Table {
        let mut draw = Draw::new(3);
        let mut text = String::from("x,y,kind\n");
        for row in 0..rows {
            let kind = if row % 1000 == 0 { 2 } else { draw.below(2) };
            let near = [0.0, 2.0, 9.0][kind];
            let (x, y) = (near + draw.unit() * 3.0, draw.unit());
            writeln!(text, "{x:.4},{y:.4},{}", ["a", "b", "c"][kind]).unwrap();
        }
        read_csv(text.as_bytes(), "test.csv", &CsvOptions::default()).unwrap()
    }

    #[test]
    fn a_large_table_of_absurd_numbers_ends() {
        let mut table = overlapping(SUM_ROWS_MAX + 1);
        for (row, numbers) in table.rows.iter_mut().enumerate() {
            numbers[0] *= if row % 3 == 0 { 1e300 } else { -1e-300 };
        }
        // Learned or refused, but not for ever; what was learned answers with probabilities.
        if let Ok(model) = Logistic::fit(&table) {
            let said = model.predict(&table.rows[0]);
            assert!((said.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{said:?}");
        }
    }

    #[test]
    fn both_ways_find_the_same_weights() {
        let table = overlapping(8000);
        let scale = Scale::of(&table.rows);
        let (sum, mean) = (
            fit_sum(&table, &scale).unwrap(),
            fit_mean(&table, &scale).unwrap(),
        );
        for (one, other) in sum.iter().zip(&mean) {
            let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
            let pairs = std::iter::zip(
                one.weights.iter().chain([&one.intercept]),
                other.weights.iter().chain([&other.intercept]),
            );
            for (one, other) in pairs {
                // The loss says nothing of a number that is added to all intercepts.
                assert!((one - other).abs() < 0.02, "{sum:?} {mean:?}");
            }
        }
    }
}
