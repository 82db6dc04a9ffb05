//! Gaussian naive Bayes. linfa's own probabilities overflow far from the data, so only its fit is used.
//! Invariant: each class that was seen has variances above zero.

use std::collections::BTreeMap;

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_bayes::GaussianNb;
use serde::{Deserialize, Serialize};

use super::fitted::{labels, matrix};
use super::number::{clamp, softmax};
use crate::data::Table;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bayes {
    /// `None` for a class that no row had.
    classes: Vec<Option<Class>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Class {
    log_prior: f64,
    means: Vec<f64>,
    variances: Vec<f64>,
}

/// How linfa writes its model down, which is the one way it shows the numbers.
#[derive(Deserialize)]
struct Written {
    class_info: BTreeMap<usize, WrittenClass>,
}

#[derive(Deserialize)]
struct WrittenClass {
    prior: f64,
    theta: WrittenArray,
    sigma: WrittenArray,
}

#[derive(Deserialize)]
struct WrittenArray {
    data: Vec<f64>,
}

impl Bayes {
    pub(super) fn fit(table: &Table) -> anyhow::Result<Self> {
        let dataset = Dataset::new(matrix(&table.rows), labels(table));
        let model = GaussianNb::params()
            .fit(&dataset)
            .context("fit the naive Bayes model")?;
        let text = serde_json::to_string(&model).context("write the naive Bayes model")?;
        let mut written: Written = serde_json::from_str(&text).context("read the naive Bayes model")?;
        let classes = (0..table.classes.len()).map(|class| {
            let written = written.class_info.remove(&class)?;
            let spread = written.sigma.data.iter().map(|variance| variance.max(1e-300));
            Some(Class {
                log_prior: written.prior.ln(),
                variances: spread.collect(),
                means: written.theta.data,
            })
        });
        Ok(Self {
            classes: classes.collect(),
        })
    }

    pub(super) fn fits(&self, features: usize, classes: usize) -> bool {
        let mut seen = self.classes.iter().flatten();
        let sound = |class: &Class| class.means.len() == features && class.variances.len() == features;
        self.classes.len() == classes && self.classes.iter().any(Option::is_some) && seen.all(sound)
    }

    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        let logs: Vec<f64> = self
            .classes
            .iter()
            .map(|class| class.as_ref().map_or(f64::NEG_INFINITY, |class| class.log(row)))
            .collect();
        softmax(&logs)
    }
}

impl Class {
    /// The logarithm of the likelihood, up to a constant.
    fn log(&self, row: &[f64]) -> f64 {
        let mut log = self.log_prior;
        for ((number, mean), variance) in row.iter().zip(&self.means).zip(&self.variances) {
            let distance = clamp((number - mean) / variance.sqrt());
            log -= 0.5 * (distance * distance + variance.ln());
        }
        log
    }
}
