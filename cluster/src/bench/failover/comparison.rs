//! What was seen of both sides, for people and programs: a table, a file, and a chart.
//! Invariant: the file holds what `--json` says; here nothing is measured.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::{How, Report, goals};
use crate::bench::chart::{Bar, Group, picture};
use crate::bench::goal::{self, Goal};
use crate::context::Context;

const TITLE: &str = "How long nobody could write after the leader was taken away: the median, and from the shortest to the longest";

#[derive(Serialize)]
pub(super) struct Comparison {
    version: &'static str,
    etcd_version: Option<String>,
    kinds: Vec<Kind>,
    /// What could not be measured, and why.
    left_out: Vec<String>,
    goals: Vec<Goal>,
}

#[derive(Serialize)]
pub(super) struct Kind {
    pub(super) how: How,
    pub(super) menagerie: Report,
    etcd: Option<Report>,
    /// Median to median.
    pub(super) to_etcd: Option<f64>,
}

impl Kind {
    pub(super) fn new(how: How, menagerie: Report, etcd: Option<Report>) -> Self {
        let to_etcd = etcd.as_ref().map(|etcd| menagerie.median_ms / etcd.median_ms);
        Self {
            how,
            menagerie,
            etcd,
            to_etcd,
        }
    }

    fn name(&self) -> String {
        format!("{:?}", self.how).to_lowercase()
    }

    fn sides(&self) -> impl Iterator<Item = (&'static str, &Report)> {
        let etcd = self.etcd.as_ref().map(|etcd| ("etcd", etcd));
        std::iter::once(("menagerie", &self.menagerie)).chain(etcd)
    }
}

impl Comparison {
    pub(super) fn new(etcd_version: Option<String>, kinds: Vec<Kind>, left_out: Vec<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            etcd_version,
            goals: goals::judge(&kinds),
            kinds,
            left_out,
        }
    }

    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).context("make the folder of the report")?;
        let json = serde_json::to_vec_pretty(self)?;
        std::fs::write(folder.join("failover.json"), json).context("write the report")?;
        std::fs::write(folder.join("failover.svg"), self.draw()).context("write the report")
    }

    pub(super) fn show(&self, context: &Context, folder: &Path) -> anyhow::Result<()> {
        let output = context.output;
        if output.json {
            return Ok(output.document(self)?);
        }
        let header = [
            "FAULT",
            "SIDE",
            "TIMES",
            "SHORTEST",
            "MEDIAN",
            "P90",
            "LONGEST",
            "WHEN HEALED",
            "FAILED TRIES",
            "UNREACHED",
            "TO ETCD",
        ];
        output.table(header, self.kinds.iter().flat_map(cells))?;
        output.line("")?;
        goal::show(context, &self.goals)?;
        output.line("")?;
        if let Some(version) = &self.etcd_version {
            output.line(format_args!("beside etcd {version}"))?;
        }
        let (json, chart) = (folder.join("failover.json"), folder.join("failover.svg"));
        output.line(format_args!("{} and {}", json.display(), chart.display()))?;
        Ok(())
    }

    fn draw(&self) -> String {
        let groups = self.kinds.iter().map(|kind| Group {
            name: kind.name(),
            bars: kind.sides().map(|(side, report)| bar(side, report)).collect(),
        });
        picture(TITLE, &groups.collect::<Vec<_>>())
    }
}

fn bar(side: &str, report: &Report) -> Bar {
    Bar {
        class: if side == "etcd" { "etcd" } else { "ours" },
        value: report.median_ms,
        min: report.min_ms,
        max: report.max_ms,
        text: format!("{side} {:.0} ms", report.median_ms),
    }
}

fn cells(kind: &Kind) -> Vec<[String; 11]> {
    let cells = kind.sides().map(|(side, report)| {
        let ratio = kind.to_etcd.filter(|_| side == "menagerie");
        let healed = report.max_after_heal_ms;
        [
            kind.name(),
            side.to_owned(),
            report.faults.len().to_string(),
            format!("{:.1} ms", report.min_ms),
            format!("{:.1} ms", report.median_ms),
            format!("{:.1} ms", report.p90_ms),
            format!("{:.1} ms", report.max_ms),
            healed.map_or_else(String::new, |ms| format!("{ms:.1} ms")),
            report.failures.failed_tries.to_string(),
            report.failures.unreached_tries.to_string(),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
        ]
    });
    cells.collect()
}
