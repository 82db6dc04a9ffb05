//! Random forest: a hundred trees on bootstrap samples. Each votes with the shares of the classes in its leaf, and
//! Laplace smoothing is done on the votes: in each leaf, as for a lone tree, it would make the forest too unsure.
//! Invariant: the seed decides the samples; ties within a tree are broken by chance, so what is fitted is stored.

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_ensemble::EnsembleLearnerParams;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::fitted::{labels, matrix};
use super::number::smoothed;
use super::tree::{self, Tree};
use crate::data::Table;

const TREES: usize = 100;
/// More would make a tree slower to grow, and hardly another.
const ROWS_A_TREE_MAX: usize = 10_000;
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
        let drawn = rows_a_tree(table.len());
        #[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
        let share = drawn as f64 / table.len() as f64;
        let grown = EnsembleLearnerParams::new_fixed_rng(tree::settings(drawn), StdRng::seed_from_u64(seed))
            .ensemble_size(TREES)
            .bootstrap_proportion(share)
            .feature_proportion(FEATURES_SHARE)
            .fit(&dataset)
            .context("grow the forest")?;
        let grown = grown.models.iter().zip(&grown.model_features);
        let trees = grown.map(|(tree, features)| Tree::of_forest(tree, features));
        let mut trees: Vec<Tree> = trees.collect();
        tree::count(&mut trees, table);
        Ok(Self {
            trees,
            classes: u32::try_from(table.classes.len()).context("count the classes")?,
        })
    }

    pub(super) fn fits(&self, features: usize, classes: usize) -> bool {
        self.classes as usize == classes && self.trees.iter().all(|tree| tree.fits(features, classes))
    }

    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        let mut votes = vec![0.0; self.classes as usize];
        for tree in &self.trees {
            for (vote, share) in votes.iter_mut().zip(tree.predict(row)) {
                *vote += share;
            }
        }
        smoothed(&votes)
    }
}

/// Of a table with so many.
pub(super) fn rows_a_tree(rows: usize) -> usize {
    rows.min(ROWS_A_TREE_MAX)
}
