//! Splits a table so that every part has its share of each class.
//! Invariant: the folds of one shuffle hold each row exactly once.

use super::draw::Draw;
use super::table::Table;

/// For each fold the rows it is tested on. All other rows are what is learned from.
pub fn folds(table: &Table, count: usize, draw: &mut Draw) -> Vec<Vec<usize>> {
    let mut folds = vec![Vec::new(); count];
    // One fold after the other takes a row, on from where the class before ended, so that all are of one size.
    let mut next = 0;
    for class in by_class(table, draw) {
        for row in class {
            folds[next % count].push(row);
            next += 1;
        }
    }
    folds
}

/// At most `rows_max` rows, with the shares of the classes as they are, but of each class at least one.
pub fn sample(table: &Table, rows_max: usize, draw: &mut Draw) -> Vec<usize> {
    if table.len() <= rows_max {
        return (0..table.len()).collect();
    }
    let mut rows = Vec::with_capacity(rows_max);
    for mut class in by_class(table, draw) {
        let share = (class.len() * rows_max).div_ceil(table.len());
        class.truncate(share.max(1));
        rows.extend(class);
    }
    rows.sort_unstable();
    rows
}

/// The rows of each class, shuffled.
fn by_class(table: &Table, draw: &mut Draw) -> Vec<Vec<usize>> {
    let mut classes = vec![Vec::new(); table.classes.len()];
    for (row, label) in table.labels.iter().enumerate() {
        classes[*label].push(row);
    }
    for rows in &mut classes {
        draw.shuffle(rows);
    }
    classes
}
