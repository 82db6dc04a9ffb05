//! `menagerie bench`: the store, and etcd beside it, under the same generator in one run; one table, and a report
//! with charts. Everything runs on servers of its own: what is running already is neither measured nor disturbed.
//! Invariant: sides are measured in turn, round by round, and each is first in its turn, so that a slow minute of the
//! machine slows them all, and none always finds it as the same other has left it.

mod cases;
mod ceilings;
mod goals;
mod page;
mod report;
#[cfg(test)]
mod samples;
mod services;
mod sides;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;

use super::drive::{Order, Work};
use crate::arena::{Etcd, Folder, Store};
use crate::cli::finite;
use crate::context::Context;
use cases::{CASES, Case, Stage, VALUE_BYTES};
pub(crate) use ceilings::NoOp;
use report::{Ceilings, Figure, Memory, Ratios, Report, Row};
use sides::{Ceiling, Side, Sides, generate};

const FILLERS: u32 = 16;
const CEILING_TIME: Duration = Duration::from_secs(2);
/// So that all rounds of a quick run are done in the two minutes that it may take, services included.
const QUICK_SECONDS: f64 = 0.5;

#[derive(Args)]
pub(crate) struct Compare {
    /// Fewer cases and shorter ones; under two minutes
    #[arg(long)]
    quick: bool,
    /// How often each side of each case is measured; a lone client asks the leader in the first round, then the others
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each measurement takes, but that of put-64-long five times as long [default: 4, with --quick 0.5]
    #[arg(long, value_parser = finite)]
    seconds: Option<f64>,
    /// Only these cases, such as put-64,get-64
    #[arg(long, value_delimiter = ',', value_name = "CASES")]
    only: Vec<String>,
    /// Leave etcd out
    #[arg(long)]
    without_etcd: bool,
    /// Leave the services (shop, payments, predictions) out
    #[arg(long)]
    without_services: bool,
    /// Where report.html and report.json go
    #[arg(long, default_value = "bench-report", value_name = "DIR")]
    out: PathBuf,
}

impl Compare {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let cases = self.cases()?;
        let mut left_out = Vec::new();
        let folder = Folder::beside(&context.data)?;
        let measured = Box::pin(self.measure(context, &folder, &cases, &mut left_out)).await;
        let (mut report, failed) = measured?;
        report.goals = goals::judge(&report);
        if let Some(error) = failed {
            let first = cases[report.rows.len()].name;
            if report.rows.is_empty() {
                // It would take the place of a report of a run before that has something to say.
                return Err(error.context(format!("measure {first}; there is nothing to report yet")));
            }
            // What was measured until then took long, too.
            left_out.push(format!("{first} and all after it, with the services: {error:#}"));
            report.left_out = left_out;
            let [page, _] = self.write(&report)?;
            return Err(error.context(format!("measure {first}; {} has all before it", page.display())));
        }
        if self.without_services {
            left_out.push("the services: left out by --without-services".to_owned());
        } else {
            // Written before them too: when one fails, what took so long until then is not lost.
            report.left_out.clone_from(&left_out);
            let ended = "the services: the run ended before they were measured";
            report.left_out.push(ended.to_owned());
            self.write(&report)?;
            let seconds = self.seconds_each().ceil();
            let measured = services::measure(context, &folder, self.quick, self.rounds, seconds).await;
            report.services = measured.context("measure the services; the report has all the rest")?;
            left_out.extend(services::left_out(&context.config));
        }
        report.left_out = left_out;
        let [page, json] = self.write(&report)?;
        if context.output.json {
            return Ok(context.output.document(&report)?);
        }
        page::show(context, &report)?;
        context
            .output
            .line(format_args!("\n{} and {}", page.display(), json.display()))?;
        Ok(())
    }

    /// As a page and as JSON.
    fn write(&self, report: &Report) -> anyhow::Result<[PathBuf; 2]> {
        std::fs::create_dir_all(&self.out).context("make the folder of the report")?;
        let files = ["report.html", "report.json"].map(|name| self.out.join(name));
        std::fs::write(&files[0], page::render(report)?).context("write the report")?;
        std::fs::write(&files[1], serde_json::to_vec_pretty(report)?).context("write the report")?;
        Ok(files)
    }

    fn seconds_each(&self) -> f64 {
        let usual = if self.quick { QUICK_SECONDS } else { 4.0 };
        self.seconds.unwrap_or(usual).clamp(0.1, 3600.0)
    }

    fn cases(&self) -> anyhow::Result<Vec<Case>> {
        if let Some(unknown) = self
            .only
            .iter()
            .find(|name| CASES.iter().all(|case| case.name != **name))
        {
            let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            bail!(crate::output::Usage(format!(
                "there is no case {unknown}; there are {}",
                names.join(", ")
            )));
        }
        let wanted = |case: &Case| {
            if self.only.is_empty() {
                !self.quick || case.quick
            } else {
                self.only.iter().any(|name| name == case.name)
            }
        };
        Ok(CASES.into_iter().filter(wanted).collect())
    }

    async fn measure(
        &self,
        context: &Context,
        folder: &Folder,
        cases: &[Case],
        left_out: &mut Vec<String>,
    ) -> anyhow::Result<(Report, Option<anyhow::Error>)> {
        let time = CEILING_TIME.min(Duration::from_secs_f64(self.seconds_each()));
        let ceilings = ceilings::measure(folder.path(), self.rounds, time)?;
        let etcd = match Etcd::find() {
            _ if self.without_etcd => Err("left out by --without-etcd".to_owned()),
            Some(program) => Ok(Etcd::start(&program, folder.path(), None, 0).await?),
            None => Err("there is no etcd here; `.ci/setup bench` installs it".to_owned()),
        };
        if let Err(why) = &etcd {
            context.output.note(format_args!("etcd is not measured: {why}"));
            left_out.push(format!("etcd: {why}"));
        }
        let sides = Sides {
            store: Store::start(folder.path(), None, 0, |_| {}).await?,
            etcd: etcd.ok(),
            ceiling: Ceiling::start(folder.path()).await?,
        };
        let etcd_version = sides.etcd.as_ref().map(|etcd| etcd.version.clone());
        let (rows, memory, failed) = Box::pin(self.rows(context, &sides, cases, &ceilings)).await;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            etcd_version,
            left_out: Vec::new(),
            rounds: self.rounds,
            seconds_each: self.seconds_each(),
            ceilings,
            rows,
            services: Vec::new(),
            memory,
            goals: Vec::new(),
        };
        Ok((report, failed))
    }

    async fn rows(
        &self,
        context: &Context,
        sides: &Sides,
        cases: &[Case],
        ceilings: &Ceilings,
    ) -> (Vec<Row>, Vec<Memory>, Option<anyhow::Error>) {
        let steps = cases.len() as u64 * u64::from(self.rounds);
        let progress = context.output.progress(steps, "measuring");
        let (mut memory, mut filled) = (Vec::<Memory>::new(), None);
        let (rows, failed) = until_one_fails(cases, async |case: Case| {
            if filled != Some(case.stage) {
                context
                    .output
                    .note(format_args!("{} keys are filled in", case.stage.keys()));
                fill(sides, case.stage).await?;
                filled = Some(case.stage);
                memory.push(remember(sides, case.stage));
            }
            let row = self.row(sides, &case, ceilings, &progress).await?;
            // What is kept of what was read comes with the reading.
            if let Some(memory) = memory.last_mut() {
                *memory = memory.most(remember(sides, case.stage));
            }
            Ok(row)
        })
        .await;
        progress.finish_and_clear();
        (rows, memory, failed)
    }

    async fn row(
        &self,
        sides: &Sides,
        case: &Case,
        ceilings: &Ceilings,
        progress: &ProgressBar,
    ) -> anyhow::Result<Row> {
        let (mut ours, mut etcd, mut ceiling) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let seconds = self.seconds_each() * f64::from(case.times_as_long);
            for side in Side::in_turn(round) {
                let rounds = match side {
                    Side::Menagerie => &mut ours,
                    Side::Etcd => &mut etcd,
                    Side::Ceiling if !case.ceiling => continue,
                    Side::Ceiling => &mut ceiling,
                };
                rounds.extend(sides.measure(side, case, round, seconds).await?);
            }
            progress.inc(1);
        }
        let mut row = Row {
            name: case.name.to_owned(),
            what: case.what.to_owned(),
            clients: case.clients,
            rate: case.rate,
            keys: case.stage.keys(),
            menagerie: Figure::of(ours).context("the store is always measured")?,
            etcd: Figure::of(etcd),
            ceiling: Figure::of(ceiling),
            ratios: Ratios::default(),
        };
        let synced = case.is_plain_puts().then(|| ceilings.puts_per_s(case.clients));
        row.compare(synced.flatten());
        Ok(row)
    }
}

/// One after the other; what was done before the one that fails is kept.
async fn until_one_fails<T: Copy, R>(
    all: &[T],
    mut each: impl AsyncFnMut(T) -> anyhow::Result<R>,
) -> (Vec<R>, Option<anyhow::Error>) {
    let mut done = Vec::new();
    for one in all {
        match each(*one).await {
            Ok(result) => done.push(result),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

/// Puts every key of a stage on both sides, one side after the other, and waits for what they make of it.
async fn fill(sides: &Sides, stage: Stage) -> anyhow::Result<()> {
    let targets = [Some(Side::Menagerie), sides.etcd.as_ref().map(|_| Side::Etcd)];
    for target in targets
        .into_iter()
        .flatten()
        .filter_map(|side| sides.target(side))
    {
        let order = Order {
            target,
            work: Work::Fill { bytes: VALUE_BYTES },
            clients: FILLERS,
            seconds: 0.0,
            rate: None,
            keys: stage.keys(),
            seed: 0,
        };
        generate(&order).await.context("fill in the keys")?;
    }
    sides.settle().await;
    Ok(())
}

fn remember(sides: &Sides, stage: Stage) -> Memory {
    let [menagerie_bytes, menagerie_anonymous_bytes] = sides.memory_bytes(Side::Menagerie);
    let etcd = sides.etcd.as_ref().map(|_| sides.memory_bytes(Side::Etcd));
    Memory {
        keys: stage.keys(),
        menagerie_bytes,
        etcd_bytes: etcd.map(|[all, _]| all),
        menagerie_anonymous_bytes,
        etcd_anonymous_bytes: etcd.map(|[_, anonymous]| anonymous),
    }
}

#[cfg(test)]
mod tests {
    use super::until_one_fails;

    #[tokio::test]
    async fn what_was_measured_before_a_failure_is_kept_and_nothing_is_measured_after_it() {
        let mut asked = Vec::new();
        let (done, failed) = until_one_fails(&[3, 2, 0, 1], async |n: u32| {
            asked.push(n);
            anyhow::ensure!(n > 0, "division by {n}");
            Ok(6 / n)
        })
        .await;
        assert_eq!((asked, done), (vec![3, 2, 0], vec![2, 3]));
        assert_eq!(failed.unwrap().to_string(), "division by 0");
        let (done, failed) = until_one_fails(&[1, 2], async |n: u32| Ok(n)).await;
        assert_eq!(done, [1, 2]);
        assert!(failed.is_none());
    }
}
