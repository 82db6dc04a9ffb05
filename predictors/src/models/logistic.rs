//! Multinomial logistic regression on standardised features.
//! Invariant: one row of weights for each class that was seen.

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_logistic::MultiLogisticRegression;
use serde::{Deserialize, Serialize};

use super::fitted::{labels, matrix};
use super::number::{Scale, softmax};
use crate::data::Table;

const PENALTY: f64 = 1.0;
const STEPS_MAX: u64 = 300;
/// How flat the loss must be to stop, for so many rows. It is a sum over the rows: what is flat for a hundred of them
/// is never reached for a million, and all steps would be taken.
const FLAT: f64 = 1e-4;
const FLAT_ROWS: f64 = 150.0;

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
        let dataset = Dataset::new(matrix(&scale.apply_all(&table.rows)), labels(table));
        #[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
        let rows = table.len() as f64;
        let model = MultiLogisticRegression::default()
            .alpha(PENALTY)
            .max_iterations(STEPS_MAX)
            .gradient_tolerance(FLAT * (rows / FLAT_ROWS).max(1.0))
            .fit(&dataset)
            .context("fit the logistic regression")?;
        let mut classes = vec![None; table.classes.len()];
        for (column, class) in model.classes().iter().enumerate() {
            classes[*class] = Some(Class {
                intercept: model.intercept()[column],
                weights: model.params().column(column).to_vec(),
            });
        }
        Ok(Self { scale, classes })
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

impl Class {
    fn log(&self, scaled: &[f64]) -> f64 {
        let terms = scaled
            .iter()
            .zip(&self.weights)
            .map(|(number, weight)| number * weight);
        self.intercept + terms.sum::<f64>()
    }
}
