//! The five nearest neighbours, each with one vote. linfa finds them; it does not vote, and panics on NaN.
//! Invariant: what is searched is standardised and finite.

use anyhow::Context as _;
use linfa_nn::distance::L2Dist;
use linfa_nn::{BallTree, NearestNeighbour as _, NearestNeighbourIndex};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use super::fitted::matrix;
use super::number::{Scale, is_clamped, shares};
use crate::data::Table;

const NEIGHBOURS: usize = 5;

type Index<'rows> = Box<dyn NearestNeighbourIndex<f64> + Send + Sync + 'rows>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Neighbours {
    scale: Scale,
    /// Standardised.
    rows: Vec<Vec<f64>>,
    labels: Vec<u32>,
    classes: u32,
}

/// The same with an index over the rows, for a process that serves.
pub(super) struct Indexed {
    known: Neighbours,
    index: Index<'static>,
}

impl Neighbours {
    pub(super) fn fit(table: &Table) -> Self {
        let scale = Scale::of(&table.rows);
        let number = |number: usize| u32::try_from(number).expect("there are few classes");
        Self {
            rows: scale.apply_all(&table.rows),
            labels: table.labels.iter().copied().map(number).collect(),
            classes: number(table.classes.len()),
            scale,
        }
    }

    pub(super) fn fits(&self, features: usize, classes: usize) -> bool {
        let sound = |row: &Vec<f64>| row.len() == features && row.iter().copied().all(is_clamped);
        self.classes as usize == classes
            && self.scale.fits(features)
            && !self.rows.is_empty()
            && self.rows.iter().all(sound)
            && self.labels.len() == self.rows.len()
            && self.labels.iter().all(|label| *label < self.classes)
    }

    /// For many rows at once: the index lives as long as this call.
    pub(super) fn predict_all(&self, rows: &[Vec<f64>]) -> anyhow::Result<Vec<Vec<f64>>> {
        let known = matrix(&self.rows);
        let index = index(&known)?;
        Ok(rows.iter().map(|row| self.vote(&index, row)).collect())
    }

    pub(super) fn into_indexed(self) -> anyhow::Result<Indexed> {
        // The index borrows the rows. A process loads its model once and keeps it to its end, so they may stay.
        let rows: &'static Array2<f64> = Box::leak(Box::new(matrix(&self.rows)));
        let index = index(rows)?;
        let known = Self {
            rows: Vec::new(),
            ..self
        };
        Ok(Indexed { known, index })
    }

    fn vote(&self, index: &Index<'_>, row: &[f64]) -> Vec<f64> {
        let scaled = self.scale.apply(row);
        let nearest = index.k_nearest(ArrayView1::from(&scaled), NEIGHBOURS);
        let nearest = nearest.expect("the edge checks how many features a row has");
        let mut votes = vec![0.0; self.classes as usize];
        for (_, neighbour) in nearest {
            votes[self.labels[neighbour] as usize] += 1.0;
        }
        shares(&votes)
    }
}

impl Indexed {
    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        self.known.vote(&self.index, row)
    }
}

fn index(rows: &Array2<f64>) -> anyhow::Result<Index<'_>> {
    BallTree
        .from_batch(rows, L2Dist)
        .context("build the index of neighbours")
}
