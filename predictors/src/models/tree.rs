//! Decision tree. linfa's gives labels only, and below its root it overlooks borders (between two rows of a node it
//! minds rows that are not of it), so it is asked for one split at a time, for the rows of each node alone.
//! A forest is taken over as linfa grew it, and its leaves are counted afterwards.
//! Invariant: every path ends in a leaf with a share for each class; those of a lone tree are all above zero.

use anyhow::Context as _;
use linfa::Dataset;
use linfa::traits::Fit as _;
use linfa_trees::{DecisionTree, DecisionTreeParams, TreeNode};
use serde::{Deserialize, Serialize};

use super::fitted::{labels_of, matrix_of};
use super::number::{are_shares, shares, smoothed};
use crate::data::Table;

/// Up to so many rows a tree may grow as deep as it likes.
const ROWS_SMALL: usize = 1000;
const DEPTH_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Node {
    /// At most `at` goes left.
    Split {
        feature: u32,
        at: f64,
        left: u32,
        right: u32,
    },
    Leaf(Vec<f64>),
}

/// The fewest rows of a leaf.
fn leaf_rows(rows: usize) -> usize {
    if rows <= ROWS_SMALL {
        1
    } else {
        (rows / 2000).max(2)
    }
}

fn depth_max(rows: usize) -> Option<usize> {
    (rows > ROWS_SMALL).then_some(DEPTH_MAX)
}

/// How linfa is to grow trees on so many rows.
pub(super) fn settings(rows: usize) -> DecisionTreeParams<f64, usize> {
    #[expect(clippy::cast_precision_loss, reason = "there are at most some thousand rows")]
    let leaf = leaf_rows(rows) as f32;
    DecisionTree::params()
        .max_depth(depth_max(rows))
        .min_weight_leaf(leaf)
        .min_weight_split(2.0 * leaf)
}

/// A tree while it grows: how often each class was seen.
enum Grown {
    Leaf(Vec<f64>),
    Split {
        feature: usize,
        at: f64,
        lower: Box<Grown>,
        upper: Box<Grown>,
    },
}

struct Border {
    feature: usize,
    at: f64,
    lower: Vec<usize>,
    upper: Vec<usize>,
}

impl Border {
    /// Midway between the rows of both sides that lie closest to each other.
    fn of(table: &Table, feature: usize, at: f64, rows: &[usize]) -> Option<Self> {
        let of = |row: &usize| table.rows[*row][feature];
        let (lower, upper): (Vec<usize>, Vec<usize>) = rows.iter().partition(|row| of(row) <= at);
        let below = lower.iter().map(of).reduce(f64::max)?;
        let above = upper.iter().map(of).reduce(f64::min)?;
        let middle = below.midpoint(above);
        Some(Self {
            feature,
            // Of two neighbouring numbers the middle may be the upper one, which would then change sides.
            at: if middle < above { middle } else { below },
            lower,
            upper,
        })
    }

    /// The best one for these rows, if any makes them purer.
    fn best(table: &Table, rows: &[usize], leaf_rows: usize) -> anyhow::Result<Option<Self>> {
        let first = table.labels[rows[0]];
        if rows.len() < 2 * leaf_rows || rows.iter().all(|row| table.labels[*row] == first) {
            return Ok(None);
        }
        let dataset = Dataset::new(matrix_of(table, rows), labels_of(table, rows));
        #[expect(clippy::cast_precision_loss, reason = "a leaf has few rows")]
        let stump = DecisionTree::params()
            .max_depth(Some(1))
            .min_weight_leaf(leaf_rows as f32)
            .fit(&dataset)
            .context("grow the tree")?;
        // Where both sides name the same class, linfa cuts them off, but the border is still told.
        let (feature, at, purer) = stump.root_node().split();
        if purer <= 0.0 {
            return Ok(None);
        }
        Ok(Self::of(table, feature, at, rows))
    }
}

fn count_of(table: &Table, rows: &[usize]) -> Vec<f64> {
    let mut counts = vec![0.0; table.classes.len()];
    for row in rows {
        counts[table.labels[*row]] += 1.0;
    }
    counts
}

fn grow(table: &Table, rows: &[usize], depth: usize) -> anyhow::Result<Grown> {
    let deep = depth_max(table.len()).is_some_and(|depth_max| depth >= depth_max);
    let border = if deep {
        None
    } else {
        Border::best(table, rows, leaf_rows(table.len()))?
    };
    let Some(border) = border else {
        return Ok(Grown::Leaf(count_of(table, rows)));
    };
    let lower = grow(table, &border.lower, depth + 1)?;
    let upper = grow(table, &border.upper, depth + 1)?;
    Ok(match (lower, upper) {
        // Both name the same class: together they know better how often it is.
        (Grown::Leaf(one), Grown::Leaf(two)) if label(&one) == label(&two) => {
            Grown::Leaf(count_of(table, rows))
        }
        (lower, upper) => Grown::Split {
            feature: border.feature,
            at: border.at,
            lower: Box::new(lower),
            upper: Box::new(upper),
        },
    })
}

/// As linfa grew it, nothing counted yet. `features` says which of the table's each of the tree's is.
fn take_over(node: &TreeNode<f64, usize>, features: &[usize]) -> Grown {
    let children = node.children();
    let [Some(left), Some(right)] = children[..] else {
        return Grown::Leaf(Vec::new());
    };
    let (feature, at, _) = node.split();
    Grown::Split {
        feature: features[feature],
        at,
        lower: Box::new(take_over(left, features)),
        upper: Box::new(take_over(right, features)),
    }
}

/// Puts into each leaf the shares of the classes among the rows that end there.
pub(super) fn count(trees: &mut [Tree], table: &Table) {
    let empty = vec![0.0; table.classes.len()];
    for tree in &mut *trees {
        for node in &mut tree.nodes {
            if let Node::Leaf(counts) = node {
                counts.clone_from(&empty);
            }
        }
    }
    // Row by row, so that each is fetched from memory once and not once for every tree.
    for (row, label) in table.rows.iter().zip(&table.labels) {
        for tree in &mut *trees {
            let place = tree.leaf(row);
            if let Node::Leaf(counts) = &mut tree.nodes[place] {
                counts[*label] += 1.0;
            }
        }
    }
    for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
        if let Node::Leaf(counts) = node {
            *counts = shares(counts);
        }
    }
}

impl Tree {
    pub(super) fn fit(table: &Table) -> anyhow::Result<Self> {
        let rows: Vec<usize> = (0..table.len()).collect();
        Ok(Self::flat(grow(table, &rows, 0)?))
    }

    /// It predicts only once it was counted.
    pub(super) fn of_forest(grown: &DecisionTree<f64, usize>, features: &[usize]) -> Self {
        Self::flat(take_over(grown.root_node(), features))
    }

    fn flat(grown: Grown) -> Self {
        let mut tree = Self { nodes: Vec::new() };
        tree.add(grown);
        tree
    }

    fn add(&mut self, grown: Grown) -> u32 {
        let number = |number: usize| u32::try_from(number).expect("a tree is smaller than its table");
        let place = self.nodes.len();
        match grown {
            Grown::Leaf(counts) => {
                self.nodes.push(Node::Leaf(smoothed(&counts)));
            }
            Grown::Split {
                feature,
                at,
                lower,
                upper,
            } => {
                self.nodes.push(Node::Leaf(Vec::new()));
                let (left, right) = (self.add(*lower), self.add(*upper));
                self.nodes[place] = Node::Split {
                    feature: number(feature),
                    at,
                    left,
                    right,
                };
            }
        }
        number(place)
    }

    pub(super) fn fits(&self, features: usize, classes: usize) -> bool {
        // Paths lead to nodes that stand behind, so that each of them ends.
        let behind = |place: usize, next: u32| (place + 1..self.nodes.len()).contains(&(next as usize));
        let sound = |(place, node): (usize, &Node)| match node {
            Node::Leaf(shares) => are_shares(shares, classes),
            Node::Split {
                feature, left, right, ..
            } => (*feature as usize) < features && behind(place, *left) && behind(place, *right),
        };
        !self.nodes.is_empty() && self.nodes.iter().enumerate().all(sound)
    }

    pub(super) fn predict(&self, row: &[f64]) -> &[f64] {
        match &self.nodes[self.leaf(row)] {
            Node::Leaf(shares) => shares,
            Node::Split { .. } => &[],
        }
    }

    /// Where the path of the row ends.
    fn leaf(&self, row: &[f64]) -> usize {
        let mut place = 0;
        while let Node::Split {
            feature,
            at,
            left,
            right,
        } = &self.nodes[place]
        {
            let goes_left = row[*feature as usize] <= *at;
            place = if goes_left { *left } else { *right } as usize;
        }
        place
    }
}

/// The most frequent class; of several the lowest.
fn label(counts: &[f64]) -> usize {
    let most = counts.iter().copied().fold(0.0, f64::max);
    counts.iter().position(|count| *count >= most).unwrap_or(0)
}
