//! What models say of rows they have not learned from.

use super::figures::Figures;
use crate::data::{Draw, Table, folds, sample};
use crate::models::{self, Kind};

/// More rows would make the figures no more telling, only slower to come by.
pub const JUDGED_ROWS_MAX: usize = 5_000;

/// For each row of the table the probabilities of a model that was fitted without it.
pub fn out_of_fold(kind: Kind, table: &Table, count: usize, seed: u64) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut said = vec![Vec::new(); table.len()];
    for tested in folds(table, count, &mut Draw::new(seed)) {
        let mut inside = vec![false; table.len()];
        for row in &tested {
            inside[*row] = true;
        }
        let learned: Vec<usize> = (0..table.len()).filter(|row| !inside[*row]).collect();
        let fitted = models::fit(kind, &table.pick(&learned), seed)?;
        let probabilities = fitted.predict_all(&table.pick(&tested).rows)?;
        for (row, probabilities) in tested.into_iter().zip(probabilities) {
            said[row] = probabilities;
        }
    }
    Ok(said)
}

/// The figures for a model card; `None` where a class has too few rows to hold one out.
pub fn cross_validated(
    kind: Kind,
    table: &Table,
    folds_max: usize,
    repeats: usize,
    seed: u64,
) -> anyhow::Result<Option<Figures>> {
    let table = small_enough(table, seed);
    let folds = folds_for(&table, folds_max);
    if folds < 2 {
        return Ok(None);
    }
    let mut figures = Figures::new(table.classes.len());
    for repeat in 0..repeats {
        let said = out_of_fold(kind, &table, folds, seed_of(seed, repeat))?;
        for (probabilities, truth) in said.iter().zip(&table.labels) {
            figures.add(probabilities, *truth);
        }
    }
    Ok(Some(figures))
}

/// The table, or as much of it as is judged.
pub(super) fn small_enough(table: &Table, seed: u64) -> Table {
    table.pick(&sample(table, JUDGED_ROWS_MAX, &mut Draw::new(seed)))
}

/// No more folds than the smallest class has rows.
pub(super) fn folds_for(table: &Table, folds_max: usize) -> usize {
    let smallest = table.counts().into_iter().min().unwrap_or(0);
    folds_max.min(smallest)
}

pub(super) fn seed_of(seed: u64, repeat: usize) -> u64 {
    seed.wrapping_add(u64::try_from(repeat).unwrap_or(0).wrapping_mul(0x9e37_79b9))
}
