//! Reads a table from CSV: a line of names, then numbers and one column of labels.
//! Invariant: what is read is whole and finite; every refusal names the line and the column.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anyhow::{Context as _, bail, ensure};

use super::table::Table;

const ROWS_MAX: usize = 1_000_000;
const FEATURES_MAX: usize = 64;
const CLASSES_MAX: usize = 32;
/// Cells that say that there is nothing.
const GAPS: [&str; 6] = ["", "na", "nan", "null", "none", "?"];

/// What to do where a number is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impute {
    /// Put the mean of the column there.
    Mean,
}

#[derive(Clone, Debug, Default)]
pub struct CsvOptions {
    /// The column of the labels; the last one unless named.
    pub label: Option<String>,
    /// Columns to leave out.
    pub ignore: Vec<String>,
    pub impute: Option<Impute>,
}

/// The columns as they are used.
struct Columns {
    names: Vec<String>,
    label: usize,
    features: Vec<usize>,
}

pub fn read_csv(input: impl Read, name: &str, options: &CsvOptions) -> anyhow::Result<Table> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(input);
    let header = reader.headers().with_context(|| format!("read {name}"))?.clone();
    let columns = Columns::of(&header, name, options)?;
    let mut rows: Vec<Vec<Option<f64>>> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for record in reader.records() {
        let record = record.with_context(|| format!("read {name}"))?;
        let line = record.position().map_or(0, csv::Position::line);
        ensure!(
            rows.len() < ROWS_MAX,
            "{name}:{line}: more than {ROWS_MAX} rows; take a sample of them"
        );
        ensure!(
            record.len() == columns.names.len(),
            "{name}:{line}: {} columns, but the first line names {}",
            record.len(),
            columns.names.len()
        );
        rows.push(columns.row(&record, name, line, options)?);
        let word = &record[columns.label];
        if is_gap(word) {
            let label = &columns.names[columns.label];
            bail!("{name}:{line}: column \"{label}\": the label is missing; remove this row");
        }
        words.push(word.to_owned());
    }
    let mut table = label(name, words)?;
    table.features = columns
        .features
        .iter()
        .map(|at| columns.names[*at].clone())
        .collect();
    let gaps = rows.iter().flatten().filter(|cell| cell.is_none()).count();
    if gaps > 0 {
        table
            .notes
            .push(format!("{gaps} missing numbers are the mean of their column"));
    }
    table.rows = fill(rows, &table.features, name)?;
    Ok(table)
}

impl Columns {
    fn of(header: &csv::StringRecord, name: &str, options: &CsvOptions) -> anyhow::Result<Self> {
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        ensure!(
            names.len() >= 2,
            "{name}:1: a table needs at least one feature and a label"
        );
        let mut seen = BTreeSet::new();
        for (at, column) in names.iter().enumerate() {
            ensure!(!column.is_empty(), "{name}:1: column {} has no name", at + 1);
            ensure!(
                column.parse::<f64>().is_err(),
                "{name}:1: the first line must name the columns, but \"{column}\" is a number"
            );
            ensure!(
                seen.insert(column),
                "{name}:1: two columns are called \"{column}\""
            );
        }
        let find = |wanted: &str| {
            let at = names.iter().position(|column| column == wanted);
            at.with_context(|| {
                format!(
                    "{name}:1: there is no column \"{wanted}\"; there are: {}",
                    names.join(", ")
                )
            })
        };
        let label = match &options.label {
            Some(label) => find(label)?,
            None => names.len() - 1,
        };
        let ignored = options.ignore.iter().map(|column| find(column));
        let ignored = ignored.collect::<anyhow::Result<Vec<usize>>>()?;
        let features = (0..names.len()).filter(|at| *at != label && !ignored.contains(at));
        let features: Vec<usize> = features.collect();
        ensure!(
            (1..=FEATURES_MAX).contains(&features.len()),
            "{name}:1: {} features; there may be 1 to {FEATURES_MAX}",
            features.len()
        );
        Ok(Self {
            names,
            label,
            features,
        })
    }

    fn row(
        &self,
        record: &csv::StringRecord,
        name: &str,
        line: u64,
        options: &CsvOptions,
    ) -> anyhow::Result<Vec<Option<f64>>> {
        let mut row = Vec::with_capacity(self.features.len());
        for at in &self.features {
            let (cell, column) = (&record[*at], &self.names[*at]);
            if is_gap(cell) {
                ensure!(
                    options.impute.is_some(),
                    "{name}:{line}: column \"{column}\": the number is missing; remove the row, or fill gaps with \
                     --impute mean"
                );
                row.push(None);
                continue;
            }
            match cell.parse::<f64>() {
                Ok(number) if number.is_finite() => row.push(Some(number)),
                Ok(_) => bail!("{name}:{line}: column \"{column}\": \"{cell}\" is not a finite number"),
                Err(_) => bail!(
                    "{name}:{line}: column \"{column}\": \"{cell}\" is no number; leave the column out with \
                     --ignore {column}, or name it as the label with --label {column}"
                ),
            }
        }
        Ok(row)
    }
}

fn is_gap(cell: &str) -> bool {
    GAPS.iter().any(|gap| cell.eq_ignore_ascii_case(gap))
}

/// Numbers the classes in the order of their names.
fn label(name: &str, words: Vec<String>) -> anyhow::Result<Table> {
    ensure!(
        words.len() >= 10,
        "{name}: {} rows are too few to learn from; it takes at least 10",
        words.len()
    );
    let names: BTreeSet<&String> = words.iter().collect();
    ensure!(
        (2..=CLASSES_MAX).contains(&names.len()),
        "{name}: the label has {} different values; there may be 2 to {CLASSES_MAX} (is it the right column?)",
        names.len()
    );
    let classes: Vec<String> = names.into_iter().cloned().collect();
    let numbers: BTreeMap<&String, usize> = classes.iter().zip(0..).collect();
    let labels: Vec<usize> = words.iter().map(|word| numbers[word]).collect();
    let table = Table {
        source: name.to_owned(),
        notes: Vec::new(),
        features: Vec::new(),
        rows: Vec::new(),
        labels,
        classes: classes.clone(),
    };
    let few = table.counts().iter().position(|count| *count < 2);
    if let Some(class) = few {
        bail!(
            "{name}: the class \"{}\" has a single row; it takes at least two",
            table.classes[class]
        );
    }
    Ok(table)
}

fn fill(rows: Vec<Vec<Option<f64>>>, features: &[String], name: &str) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut means = Vec::with_capacity(features.len());
    for (at, feature) in features.iter().enumerate() {
        let present: Vec<f64> = rows.iter().filter_map(|row| row[at]).collect();
        ensure!(
            !present.is_empty(),
            "{name}: column \"{feature}\" has no number at all"
        );
        #[expect(clippy::cast_precision_loss, reason = "there are at most a million rows")]
        let count = present.len() as f64;
        // Each is divided first, so that large numbers do not overflow.
        means.push(present.iter().map(|number| number / count).sum::<f64>());
    }
    let filled = rows.into_iter().map(|row| {
        let cells = row.into_iter().zip(&means);
        cells.map(|(cell, mean)| cell.unwrap_or(*mean)).collect()
    });
    Ok(filled.collect())
}
