//! `menagerie predictors evaluate|simulate`: how good the models are, and how the network fares, without processes.
//! Invariant: nothing here touches the store.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use predictors::data::{CsvOptions, Impute, Table, iris, read_csv};
use predictors::evaluate::{self, Evaluation, Judged, Plan};
use predictors::models::Kind;
use predictors::simulate::{self, Scenario, Simulation};

use crate::context::Context;
use crate::predictor::Learning;

#[derive(Subcommand)]
pub(crate) enum Predictors {
    /// Judge all models and their consensus by repeated cross-validation
    Evaluate(Evaluate),
    /// Play many rounds with honest models and adversaries, without any process
    Simulate(Simulate),
}

#[derive(Args)]
pub(crate) struct Evaluate {
    #[command(flatten)]
    learning: Learning,
    /// How often the table is shuffled and split anew
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Into how many parts it is split
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    folds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a page with tables and plots there, too
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Simulate {
    /// Who takes part: honest, random, flipper, collude2, collude3, sybil5 or drift [default: each of them]
    #[arg(long)]
    scenario: Option<Scenario>,
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    seeds: u32,
}

impl Predictors {
    pub(crate) fn run(self, context: &Context, table: Option<PathBuf>) -> anyhow::Result<()> {
        match self {
            Self::Evaluate(evaluate) => evaluate.run(context, table),
            Self::Simulate(simulate) => simulate.run(context),
        }
    }
}

fn read(learning: Learning) -> anyhow::Result<Table> {
    let Some(path) = learning.table else {
        return Ok(iris());
    };
    let options = CsvOptions {
        label: learning.label,
        ignore: learning.ignore,
        impute: learning.impute.map(|_mean| Impute::Mean),
    };
    let name = path.display().to_string();
    let file = std::fs::File::open(&path).with_context(|| format!("open {name}"))?;
    read_csv(std::io::BufReader::new(file), &name, &options)
}

impl Evaluate {
    fn run(self, context: &Context, table: Option<PathBuf>) -> anyhow::Result<()> {
        let table = read(self.learning.over(table)?)?;
        let plan = Plan {
            repeats: self.repeats as usize,
            folds: self.folds as usize,
            seed: self.seed,
        };
        let steps = u64::from(self.repeats) * Kind::ALL.len() as u64;
        let progress = context.output.progress(steps, "judging");
        let evaluation = evaluate::evaluate(&table, plan, &mut || progress.inc(1))?;
        progress.finish_and_clear();
        if let Some(path) = &self.report {
            let page = evaluate::html(&evaluation)?;
            std::fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
            context.output.note(format_args!("wrote {}", path.display()));
        }
        if context.output.json {
            context.output.document(&evaluation)?;
        } else {
            show_evaluation(context, &evaluation)?;
        }
        Ok(())
    }
}

fn show_evaluation(context: &Context, evaluation: &Evaluation) -> std::io::Result<()> {
    let Evaluation {
        data,
        rows,
        folds,
        repeats,
        ..
    } = evaluation;
    context.output.line(format_args!(
        "{data}: {rows} rows, {folds} folds, {repeats} repeats; no row is judged by a model that learned from it"
    ))?;
    let row = |judged: &Judged| {
        let figures = &judged.figures;
        [
            judged.name.clone(),
            format!("{:.2} %", 100.0 * figures.accuracy),
            format!("{:.2}", 100.0 * judged.accuracy_deviation),
            format!("{:.3}", figures.log_loss),
            format!("{:.3}", figures.brier),
            judged
                .stake
                .map_or_else(String::new, |stake| format!("{stake:.0}")),
        ]
    };
    let judged = evaluation.models.iter().chain([&evaluation.consensus]);
    context.output.table(
        ["MODEL", "ACCURACY", "±", "LOG LOSS", "BRIER", "STAKE"],
        judged.map(row),
    )?;
    let classes = evaluation.classes.join(", ");
    context.output.line(format_args!(
        "consensus, true class by row and said class by column ({classes}):"
    ))?;
    for counts in &evaluation.consensus.figures.confusion {
        let cells: Vec<String> = counts.iter().map(|count| format!("{count:>7}")).collect();
        context.output.line(cells.join(""))?;
    }
    Ok(())
}

impl Simulate {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let scenarios = self
            .scenario
            .map_or_else(|| Scenario::ALL.to_vec(), |one| vec![one]);
        let (rounds, seeds) = (self.rounds as usize, self.seeds as usize);
        let steps = u64::from(self.seeds) * scenarios.len() as u64;
        let progress = context.output.progress(steps, "playing");
        let mut simulations = Vec::with_capacity(scenarios.len());
        for scenario in scenarios {
            simulations.push(simulate::simulate(&iris(), scenario, rounds, seeds, &mut || {
                progress.inc(1);
            })?);
        }
        progress.finish_and_clear();
        if context.output.json {
            if let [one] = &simulations[..] {
                context.output.document(one)?;
            } else {
                context.output.document(&simulations)?;
            }
            return Ok(());
        }
        show_simulations(context, &simulations)?;
        Ok(())
    }
}

fn show_simulations(context: &Context, simulations: &[Simulation]) -> std::io::Result<()> {
    let none = || "–".to_owned();
    let rows = simulations.iter().map(|one| {
        let harmless = one.harmless_after.zip(one.harmless_after_max);
        [
            one.scenario.word().to_owned(),
            format!("{:.2} %", 100.0 * one.accuracy),
            format!("{:.3}", one.log_loss),
            format!("{:.2} %", 100.0 * one.unweighted_accuracy),
            harmless.map_or_else(none, |(mean, most)| format!("{mean:.1} ({most})")),
            one.ejected_after
                .zip(one.ejected_after_mean)
                .map_or_else(none, |((first, last), mean)| {
                    format!("{first}–{last} ({mean:.1})")
                }),
            if one.conserved { "yes" } else { "NO" }.to_owned(),
        ]
    });
    context.output.table(
        [
            "SCENARIO",
            "ACCURACY",
            "LOG LOSS",
            "ONE VOTE EACH",
            "HARMLESS AFTER (MAX)",
            "EJECTED AFTER (MEAN)",
            "CONSERVED",
        ],
        rows,
    )?;
    let [one] = simulations else { return Ok(()) };
    let last = one.stakes.last().map(Vec::as_slice).unwrap_or_default();
    let models = one.names.iter().zip(last).zip(&one.trust);
    let rows =
        models.map(|((name, stake), trust)| [name.clone(), format!("{stake:.2}"), format!("{trust:.3}")]);
    context.output.table(["MODEL", "STAKE", "TRUST"], rows)
}
