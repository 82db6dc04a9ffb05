//! The middle of several rounds of one measurement, and how far they lay apart.
//! Invariant: it lies between the lowest and the highest of them.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Middle {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Middle {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    /// The distance from the lowest to the highest, in percent of the median.
    pub(super) fn spread_percent(self) -> f64 {
        if self.median > 0.0 {
            100.0 * (self.max - self.min) / self.median
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Middle;

    #[test]
    fn the_middle_of_rounds() {
        let middle = Middle::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((middle.median, middle.min, middle.max), (2.0, 1.0, 3.0));
        assert!((middle.spread_percent() - 100.0).abs() < 1e-9);
        assert!((Middle::of([1.0, 2.0]).unwrap().median - 1.5).abs() < 1e-9);
        assert!(Middle::of([]).is_none());
    }
}
