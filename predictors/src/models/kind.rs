//! Which models there are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    NaiveBayes,
    Knn,
    Logistic,
    Tree,
    Forest,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::NaiveBayes,
        Self::Knn,
        Self::Logistic,
        Self::Tree,
        Self::Forest,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::NaiveBayes => "naive-bayes",
            Self::Knn => "knn",
            Self::Logistic => "logistic",
            Self::Tree => "tree",
            Self::Forest => "forest",
        }
    }

    /// In words, with the settings that matter.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NaiveBayes => "Gaussian naive Bayes",
            Self::Knn => "the 5 nearest neighbours by Euclidean distance, on standardised features",
            Self::Logistic => "multinomial logistic regression with L2 penalty 1, on standardised features",
            Self::Tree => "decision tree by Gini impurity, leaves counted with Laplace smoothing",
            Self::Forest => {
                "100 decision trees on bootstrap samples, each with features drawn for it; votes with Laplace smoothing"
            }
        }
    }

    /// What a person should know before trusting it.
    pub fn limits(self) -> &'static str {
        match self {
            Self::NaiveBayes => {
                "Takes features as independent and bell-shaped; too sure of itself where they are not."
            }
            Self::Knn => {
                "Knows only six grades of certainty, except where rows are equal; far from all rows it still names \
                 their nearest class."
            }
            Self::Logistic => "Draws straight borders; far from all rows it becomes very sure.",
            Self::Tree => "Borders run along the axes, and a small change of the rows can change them much.",
            Self::Forest => "Never says what no row has shown; its certainty is a share of votes.",
        }
    }

    /// What a person should know of how it learned from so many rows.
    pub fn sampling(self, rows: usize) -> Option<String> {
        let drawn = super::forest::rows_a_tree(rows);
        (self == Self::Forest && drawn < rows).then(|| {
            format!("Each tree grew on {drawn} rows, drawn from all {rows}; its leaves were counted on all of them.")
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no model; there are naive-bayes, knn, logistic, tree and forest")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.word() == word)
            .ok_or(UnknownKind)
    }
}
