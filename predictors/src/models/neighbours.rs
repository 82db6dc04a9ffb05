//! The five nearest neighbours, each with one vote. linfa finds them; it does not vote, and panics on NaN.
//! Invariant: what is searched is standardised and finite, and no two of its points are equal: equal rows are one
//! point, however many they are, so that no index grows deep by them.

use std::cmp::Ordering;

use anyhow::Context as _;
use linfa_nn::distance::L2Dist;
use linfa_nn::{KdTree, NearestNeighbour as _, NearestNeighbourIndex};
use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use super::number::{Scale, is_clamped, shares};
use crate::data::{Draw, Table};

const NEIGHBOURS: u32 = 5;

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
    voters: Voters,
    index: Index<'static>,
}

/// Who votes at each point.
struct Voters {
    /// Where those of each point begin among the others; at the last place, where all end.
    begins: Vec<usize>,
    /// A class, and how many of the equal rows have it.
    rows: Vec<(u32, u32)>,
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
        let (points, voters) = gather(&self.rows, &self.labels);
        let index = index(&points)?;
        Ok(rows.iter().map(|row| self.vote(&index, &voters, row)).collect())
    }

    pub(super) fn into_indexed(self) -> anyhow::Result<Indexed> {
        let (points, voters) = gather(&self.rows, &self.labels);
        // The index borrows the points. A process loads its model once and keeps it to its end, so they may stay.
        let points: &'static Array2<f64> = Box::leak(Box::new(points));
        let index = index(points)?;
        let known = Self {
            rows: Vec::new(),
            labels: Vec::new(),
            ..self
        };
        Ok(Indexed { known, voters, index })
    }

    /// The nearest vote first, until all votes are cast. Of more equal rows than there are votes left, none is nearer
    /// than another: they share what is left.
    fn vote(&self, index: &Index<'_>, voters: &Voters, row: &[f64]) -> Vec<f64> {
        let scaled = self.scale.apply(row);
        let nearest = index.k_nearest(ArrayView1::from(&scaled), NEIGHBOURS as usize);
        let nearest = nearest.expect("the edge checks how many features a row has");
        let mut votes = vec![0.0; self.classes as usize];
        let mut left = f64::from(NEIGHBOURS);
        for (_, point) in nearest {
            let here = voters.at(point);
            let rows: f64 = here.iter().map(|(_, rows)| f64::from(*rows)).sum();
            let cast = left.min(rows);
            for (class, of_class) in here {
                votes[*class as usize] += cast * f64::from(*of_class) / rows;
            }
            left -= cast;
        }
        shares(&votes)
    }
}

impl Indexed {
    pub(super) fn predict(&self, row: &[f64]) -> Vec<f64> {
        self.known.vote(&self.index, &self.voters, row)
    }
}

impl Voters {
    fn at(&self, point: usize) -> &[(u32, u32)] {
        &self.rows[self.begins[point]..self.begins[point + 1]]
    }
}

/// The points that differ, and who votes at each.
fn gather(rows: &[Vec<f64>], labels: &[u32]) -> (Array2<f64>, Voters) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by(|one, other| {
        compare(&rows[*one], &rows[*other]).then(labels[*one].cmp(&labels[*other]))
    });
    let same_point = |one: &usize, other: &usize| compare(&rows[*one], &rows[*other]).is_eq();
    let mut points: Vec<&[usize]> = order.chunk_by(same_point).collect();
    // Points that come in their order would make the index a chain, each below the one before. Always drawn alike, so
    // that a model says the same in every process.
    Draw::new(0).shuffle(&mut points);
    let features = rows.first().map_or(0, Vec::len);
    let mut numbers = Vec::with_capacity(points.len() * features);
    let mut voters = Voters {
        begins: Vec::with_capacity(points.len() + 1),
        rows: Vec::with_capacity(points.len()),
    };
    for point in &points {
        numbers.extend_from_slice(&rows[point[0]]);
        voters.begins.push(voters.rows.len());
        for same_class in point.chunk_by(|one, other| labels[*one] == labels[*other]) {
            let count = u32::try_from(same_class.len()).expect("there are at most a million rows");
            voters.rows.push((labels[same_class[0]], count));
        }
    }
    voters.begins.push(voters.rows.len());
    let points = Array2::from_shape_vec((points.len(), features), numbers);
    (points.expect("all rows have the same length"), voters)
}

fn compare(one: &[f64], other: &[f64]) -> Ordering {
    let mut numbers = one.iter().zip(other).map(|(one, other)| one.total_cmp(other));
    numbers.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// A ball tree splits at the median, so that a number which most rows have makes it a chain; this one splits in the
/// middle of what there is.
fn index(points: &Array2<f64>) -> anyhow::Result<Index<'_>> {
    KdTree
        .from_batch(points, L2Dist)
        .context("build the index of neighbours")
}
