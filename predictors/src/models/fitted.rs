//! A model that was fitted, as it is stored and as it serves.
//! Invariant: the bytes say everything that predicts, so that their hash names the model.

use anyhow::{Context as _, ensure};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::bayes::Bayes;
use super::forest::Forest;
use super::kind::Kind;
use super::logistic::Logistic;
use super::neighbours::{Indexed, Neighbours};
use super::tree::Tree;
use crate::data::Table;

/// The first byte of what is stored.
const FORMAT: u8 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted(Inner);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Inner {
    Bayes(Bayes),
    Neighbours(Neighbours),
    Logistic(Logistic),
    Tree(Tree),
    Forest(Forest),
}

/// Learns from the table; the seed decides what is left to chance.
pub fn fit(kind: Kind, table: &Table, seed: u64) -> anyhow::Result<Fitted> {
    ensure!(!table.is_empty(), "there are no rows to learn from");
    Ok(Fitted(match kind {
        Kind::NaiveBayes => Inner::Bayes(Bayes::fit(table)?),
        Kind::Knn => Inner::Neighbours(Neighbours::fit(table)),
        Kind::Logistic => Inner::Logistic(Logistic::fit(table)?),
        Kind::Tree => Inner::Tree(Tree::fit(table)?),
        Kind::Forest => Inner::Forest(Forest::fit(table, seed)?),
    }))
}

impl Fitted {
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = vec![FORMAT];
        postcard::to_extend(self, bytes).expect("plain numbers can be written")
    }

    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let (format, rest) = bytes.split_first().context("the stored model is empty")?;
        ensure!(
            *format == FORMAT,
            "the stored model has the unknown format {format}"
        );
        postcard::from_bytes(rest).context("read the stored model")
    }

    /// Whether it takes rows of so many features, and answers each of them with a share for so many classes.
    pub fn fits(&self, features: usize, classes: usize) -> bool {
        match &self.0 {
            Inner::Bayes(model) => model.fits(features, classes),
            Inner::Neighbours(model) => model.fits(features, classes),
            Inner::Logistic(model) => model.fits(features, classes),
            Inner::Tree(model) => model.fits(features, classes),
            Inner::Forest(model) => model.fits(features, classes),
        }
    }

    /// For many rows, as an evaluation has them. Each must have as many finite numbers as there are features.
    pub fn predict_all(&self, rows: &[Vec<f64>]) -> anyhow::Result<Vec<Vec<f64>>> {
        let each = |predict: &dyn Fn(&[f64]) -> Vec<f64>| rows.iter().map(|row| predict(row)).collect();
        Ok(match &self.0 {
            Inner::Bayes(model) => each(&|row| model.predict(row)),
            Inner::Neighbours(model) => model.predict_all(rows)?,
            Inner::Logistic(model) => each(&|row| model.predict(row)),
            Inner::Tree(model) => each(&|row| model.predict(row).to_vec()),
            Inner::Forest(model) => each(&|row| model.predict(row)),
        })
    }
}

/// A model that is loaded to serve, to the end of its process.
pub struct Predictor(Serving);

enum Serving {
    Bayes(Bayes),
    Neighbours(Indexed),
    Logistic(Logistic),
    Tree(Tree),
    Forest(Forest),
}

impl Predictor {
    pub fn new(fitted: Fitted) -> anyhow::Result<Self> {
        Ok(Self(match fitted.0 {
            Inner::Bayes(model) => Serving::Bayes(model),
            Inner::Neighbours(model) => Serving::Neighbours(model.into_indexed()?),
            Inner::Logistic(model) => Serving::Logistic(model),
            Inner::Tree(model) => Serving::Tree(model),
            Inner::Forest(model) => Serving::Forest(model),
        }))
    }

    /// The row must have as many finite numbers as there are features.
    pub fn predict(&self, row: &[f64]) -> Vec<f64> {
        match &self.0 {
            Serving::Bayes(model) => model.predict(row),
            Serving::Neighbours(model) => model.predict(row),
            Serving::Logistic(model) => model.predict(row),
            Serving::Tree(model) => model.predict(row).to_vec(),
            Serving::Forest(model) => model.predict(row),
        }
    }
}

pub(super) fn matrix(rows: &[Vec<f64>]) -> Array2<f64> {
    let features = rows.first().map_or(0, Vec::len);
    let numbers = rows.iter().flatten().copied().collect();
    Array2::from_shape_vec((rows.len(), features), numbers).expect("all rows have the same length")
}

/// The same for some rows of a table.
pub(super) fn matrix_of(table: &Table, rows: &[usize]) -> Array2<f64> {
    let numbers = rows
        .iter()
        .flat_map(|row| table.rows[*row].iter().copied())
        .collect();
    Array2::from_shape_vec((rows.len(), table.features.len()), numbers)
        .expect("all rows have a number for each feature")
}

pub(super) fn labels_of(table: &Table, rows: &[usize]) -> Array1<usize> {
    rows.iter().map(|row| table.labels[*row]).collect()
}

pub(super) fn labels(table: &Table) -> Array1<usize> {
    Array1::from_vec(table.labels.clone())
}
