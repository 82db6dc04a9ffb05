//! Accuracy, log loss, Brier score and confusion of what was said, against what was true.

use serde::{Deserialize, Serialize};

/// As scikit-learn clips: what was called impossible costs much, but not everything.
const CLIP: f64 = f64::EPSILON;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub judged: u64,
    /// Of all that was judged, the share whose most likely class was the true one.
    pub accuracy: f64,
    pub log_loss: f64,
    /// The squared distance to the truth, summed over the classes: 0 is perfect, 2 is sure and wrong.
    pub brier: f64,
    /// Rows are true classes, columns what was said.
    pub confusion: Vec<Vec<u64>>,
}

impl Figures {
    pub fn new(classes: usize) -> Self {
        Self {
            judged: 0,
            accuracy: 0.0,
            log_loss: 0.0,
            brier: 0.0,
            confusion: vec![vec![0; classes]; classes],
        }
    }

    pub fn of<'a>(classes: usize, said: impl IntoIterator<Item = (&'a [f64], usize)>) -> Self {
        let mut figures = Self::new(classes);
        for (probabilities, truth) in said {
            figures.add(probabilities, truth);
        }
        figures
    }

    /// Takes in one more, by running means.
    pub fn add(&mut self, probabilities: &[f64], truth: usize) {
        self.judged += 1;
        let said = label(probabilities);
        self.confusion[truth][said] += 1;
        let count = float(self.judged);
        let mean = |mean: &mut f64, new: f64| *mean += (new - *mean) / count;
        mean(&mut self.accuracy, f64::from(u8::from(said == truth)));
        mean(&mut self.log_loss, -probabilities[truth].clamp(CLIP, 1.0).ln());
        let squares = probabilities.iter().enumerate().map(|(class, p)| {
            let true_p = f64::from(u8::from(class == truth));
            (p - true_p).powi(2)
        });
        mean(&mut self.brier, squares.sum());
    }
}

/// The most likely class; of several the lowest.
pub(crate) fn label(probabilities: &[f64]) -> usize {
    let mut best = 0;
    for (class, p) in probabilities.iter().enumerate() {
        if *p > probabilities[best] {
            best = class;
        }
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "a mean for people to read")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
