//! The evaluation as a page for people: tables and plots, without scripts and without anything from elsewhere.
//! Invariant: whatever stands in the data is escaped by the template.

use anyhow::Context as _;
use askama::Template;

use super::run::{Evaluation, Judged};

#[derive(Template)]
#[template(path = "report.html")]
struct Report<'a> {
    evaluation: &'a Evaluation,
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    judged: &'a Judged,
    accuracy: String,
    deviation: String,
    log_loss: String,
    brier: String,
    /// Places in the plots.
    at: usize,
    width: String,
    loss_width: String,
    confusion: Vec<(&'a str, Vec<Cell>)>,
}

struct Cell {
    count: u64,
    share: String,
    right: bool,
}

/// The page, complete in one file.
pub fn html(evaluation: &Evaluation) -> anyhow::Result<String> {
    let all: Vec<&Judged> = evaluation.models.iter().chain([&evaluation.consensus]).collect();
    let loss_max = all
        .iter()
        .map(|judged| judged.figures.log_loss)
        .fold(0.01, f64::max);
    let rows = all.into_iter().enumerate().map(|(at, judged)| {
        let figures = &judged.figures;
        Row {
            judged,
            accuracy: format!("{:.2} %", 100.0 * figures.accuracy),
            deviation: format!("{:.2}", 100.0 * judged.accuracy_deviation),
            log_loss: format!("{:.3}", figures.log_loss),
            brier: format!("{:.3}", figures.brier),
            at: 8 + 32 * at,
            width: format!("{:.1}", 400.0 * figures.accuracy),
            loss_width: format!("{:.1}", 400.0 * figures.log_loss / loss_max),
            confusion: confusion(evaluation, judged),
        }
    });
    let report = Report {
        evaluation,
        rows: rows.collect(),
    };
    report.render().context("lay out the report")
}

fn confusion<'a>(evaluation: &'a Evaluation, judged: &Judged) -> Vec<(&'a str, Vec<Cell>)> {
    let rows = evaluation
        .classes
        .iter()
        .zip(&judged.figures.confusion)
        .enumerate();
    rows.map(|(truth, (class, counts))| {
        let sum = super::figures::float(counts.iter().sum::<u64>().max(1));
        let cells = counts.iter().enumerate().map(|(said, count)| Cell {
            count: *count,
            share: format!("{:.3}", super::figures::float(*count) / sum),
            right: said == truth,
        });
        (class.as_str(), cells.collect())
    })
    .collect()
}
