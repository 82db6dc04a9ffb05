//! Random forest: a hundred trees on bootstrap samples, whose leaves are averaged.
//! Invariant: the seed decides the samples; ties within a tree are broken by chance, so what is fitted is stored.

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_ensemble::EnsembleLearnerParams;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::fitted::{labels, matrix};
use super::tree::{self, Tree};
use crate::data::Table;

const TREES: usize = 100;
/// Of the features, drawn for each tree with replacement.
const FEATURES_SHARE: f64 = 1.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Forest {
    trees: Vec<Tree>,
    classes: u32,
}

impl Forest {
    pub(super) fn fit(table: &Table, seed: u64) -> anyhow::Result<Self> {
        let dataset = Dataset::new(matrix(&table.rows), labels(table));
        let settings = tree::settings(table.len());
        let grown = EnsembleLearnerParams::new_fixed_rng(settings, StdRng::seed_from_u64(seed))
            .ensemble_size(TREES)
            .bootstrap_proportion(1.0)
            .feature_proportion(FEATURES_SHARE)
            .fit(&dataset)
            .context("grow the forest")?;
        let grown = grown.models.iter().zip(&grown.model_features);
        Ok(Self {
            trees: grown
                .map(|(tree, features)| Tree::of_forest(tree, features, table))
                .collect(),
            classes: u32::try_from(table.classes.len()).context("count the classes")?,
        })
    }

    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.classes as usize];
        for tree in &self.trees {
            for (sum, probability) in sums.iter_mut().zip(tree.predict(row)) {
                *sum += probability;
            }
        }
        super::number::shares(&sums)
    }
}
