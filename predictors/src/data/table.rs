//! Rows of numbers, each with the number of its class.
//! Invariant: every row has as many finite numbers as there are features, and a class that has a name.

use sha2::{Digest as _, Sha256};

#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Where it comes from, for people.
    pub source: String,
    /// Which treatment it got, for people.
    pub notes: Vec<String>,
    pub features: Vec<String>,
    pub classes: Vec<String>,
    pub rows: Vec<Vec<f64>>,
    pub labels: Vec<usize>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows each class has.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for label in &self.labels {
            counts[*label] += 1;
        }
        counts
    }

    /// The rows of these numbers, in their order.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Self {
        Self {
            rows: rows.iter().map(|row| self.rows[*row].clone()).collect(),
            labels: rows.iter().map(|row| self.labels[*row]).collect(),
            source: self.source.clone(),
            notes: self.notes.clone(),
            features: self.features.clone(),
            classes: self.classes.clone(),
        }
    }

    /// Stands for everything that a model could learn from it.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for name in self.features.iter().chain(&self.classes) {
            hash.update(name.as_bytes());
            hash.update([0]);
        }
        for (row, label) in self.rows.iter().zip(&self.labels) {
            for number in row {
                hash.update(number.to_le_bytes());
            }
            hash.update(u64::try_from(*label).unwrap_or(u64::MAX).to_le_bytes());
        }
        hex(&hash.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are a hex digit"));
        }
    }
    text
}
