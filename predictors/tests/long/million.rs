//! The largest table that is taken: every model learns from all of it, in bounded time and memory, and is judged.
//! The bounds are far above what a quiet machine needs, and far below what a person would give up at.

use std::fmt::Write as _;
use std::io::{Read, Result};
use std::time::{Duration, Instant};

use predictors::data::{CsvOptions, Draw, Table, read_csv};
use predictors::evaluate::{Plan, evaluate};
use predictors::models::{Fitted, Kind, fit};

const ROWS: usize = 1_000_000;
const TIME_MAX: Duration = Duration::from_mins(8);
const MEMORY_MIB_MAX: u64 = 3 * 1024;

/// Three kinds of fruit that overlap: by weight, by width, and two numbers that tell nothing. Made as it is read.
struct Fruit {
    draw: Draw,
    rows: usize,
    line: Vec<u8>,
    at: usize,
}

impl Fruit {
    fn new(rows: usize, seed: u64) -> Self {
        Self {
            draw: Draw::new(seed),
            rows,
            line: b"weight,width,noise,day,kind\n".to_vec(),
            at: 0,
        }
    }

    /// Near zero, seldom beyond two.
    fn bell(&mut self) -> f64 {
        (0..6).map(|_| self.draw.unit()).sum::<f64>() - 3.0
    }

    fn next_line(&mut self) {
        self.at = 0;
        self.line.clear();
        if self.rows == 0 {
            return;
        }
        self.rows -= 1;
        let (name, weight, width) =
            [("apple", 6.0, 4.0), ("cherry", 1.0, 1.0), ("plum", 4.5, 2.5)][self.draw.below(3)];
        let (weight, width) = (weight + self.bell(), width + self.bell());
        let (noise, day) = (self.bell(), self.draw.below(7));
        let mut line = String::new();
        writeln!(line, "{weight:.4},{width:.4},{noise:.4},{day},{name}").unwrap();
        self.line.extend_from_slice(line.as_bytes());
    }
}

impl Read for Fruit {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.at == self.line.len() {
            self.next_line();
        }
        let count = buffer.len().min(self.line.len() - self.at);
        buffer[..count].copy_from_slice(&self.line[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn table(rows: usize, seed: u64) -> Table {
    read_csv(Fruit::new(rows, seed), "fruit.csv", &CsvOptions::default()).unwrap()
}

/// The most memory that this process ever had.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[expect(clippy::cast_precision_loss, reason = "there are few rows")]
fn accuracy(fitted: &Fitted, fresh: &Table) -> f64 {
    let said = fitted.predict_all(&fresh.rows).unwrap();
    let right = said.iter().zip(&fresh.labels).filter(|(said, label)| {
        let best = said.iter().copied().fold(0.0, f64::max);
        said[**label] >= best
    });
    right.count() as f64 / fresh.len() as f64
}

/// One test a model, so that each has its own time and memory: nextest gives each a process.
fn learns(kind: Kind) {
    let began = Instant::now();
    let table = table(ROWS, 1);
    assert_eq!(table.len(), ROWS);
    let read = began.elapsed();
    let began = Instant::now();
    let fitted = fit(kind, &table, 1).unwrap();
    let learned = began.elapsed();
    let bytes = fitted.to_bytes().len();
    let accuracy = accuracy(&fitted, &self::table(5000, 2));
    eprintln!(
        "{kind}: read in {read:.1?}, learned in {learned:.1?}, {bytes} bytes, accuracy {accuracy:.4}, at most {} MiB",
        memory_mib()
    );
    // The best that anybody could reach is a little above 0.95.
    assert!(accuracy > 0.92, "{accuracy}");
    assert!(learned < TIME_MAX, "{learned:?}");
    assert!(memory_mib() < MEMORY_MIB_MAX, "{} MiB", memory_mib());
}

#[test]
fn naive_bayes_learns_from_a_million_rows() {
    learns(Kind::NaiveBayes);
}

#[test]
fn neighbours_learn_from_a_million_rows() {
    learns(Kind::Knn);
}

#[test]
fn logistic_regression_learns_from_a_million_rows() {
    learns(Kind::Logistic);
}

#[test]
fn a_tree_learns_from_a_million_rows() {
    learns(Kind::Tree);
}

#[test]
fn a_forest_learns_from_a_million_rows() {
    learns(Kind::Forest);
}

#[test]
fn a_million_rows_are_judged() {
    let table = table(ROWS, 1);
    let plan = Plan {
        repeats: 1,
        folds: 5,
        seed: 1,
    };
    let began = Instant::now();
    let evaluation = evaluate(&table, plan, &mut || {}).unwrap();
    for judged in evaluation.models.iter().chain([&evaluation.consensus]) {
        let figures = &judged.figures;
        eprintln!(
            "{}: {:.4}, log loss {:.3}",
            judged.name, figures.accuracy, figures.log_loss
        );
        assert!(figures.accuracy > 0.92, "{judged:?}");
    }
    eprintln!("judged in {:.1?}, at most {} MiB", began.elapsed(), memory_mib());
    assert!(began.elapsed() < TIME_MAX);
}

#[test]
fn one_row_more_is_refused_with_its_line() {
    let refused = read_csv(Fruit::new(ROWS + 1, 1), "fruit.csv", &CsvOptions::default()).unwrap_err();
    assert_eq!(
        format!("{refused:#}"),
        "fruit.csv:1000002: more than 1000000 rows; take a sample of them"
    );
}
