//! The figures for people: a table on the terminal, and a page with the same table and charts.
//! Invariant: every figure of the page stands in the JSON beside it too; here nothing is measured or judged.

use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::chart::{Bar, Group, bars};
use super::report::{Figure, Middle, Report, Row};
use crate::context::Context;

const PAGE: &str = include_str!("report.html");

pub(super) fn show(context: &Context, report: &Report) -> anyhow::Result<()> {
    let output = context.output;
    output.table(
        [
            "CASE",
            "OPS/S",
            "P50",
            "P99",
            "P99.9",
            "ETCD OPS/S",
            "P50",
            "P99",
            "× ETCD",
            "× NO-OP",
            "SPREAD",
            "ERRORS",
        ],
        report.rows.iter().map(cells),
    )?;
    if !report.services.is_empty() {
        output.line("")?;
        output.table(
            ["SERVICE", "OPS/S", "P50", "P99", "SPREAD", "ERRORS"],
            report.services.iter().map(|row| {
                [
                    row.name.clone(),
                    format!("{:.0}", row.operations_per_s.median),
                    ms(row.p50_ms),
                    ms(row.p99_ms),
                    format!("{:.0} %", row.operations_per_s.spread_percent()),
                    row.errors.to_string(),
                ]
            }),
        )?;
    }
    output.line("")?;
    output.table(
        ["GOAL", "MEASURED", "WANTED", ""],
        report.goals.iter().map(|goal| {
            let sign = if goal.at_most { "≤" } else { "≥" };
            [
                goal.what.clone(),
                format!("{:.2}", goal.measured),
                format!("{sign} {}", goal.wanted),
                if goal.reached { "reached" } else { "NOT REACHED" }.to_owned(),
            ]
        }),
    )?;
    let ceilings = &report.ceilings;
    output.line(format_args!(
        "\nthis machine: {} cores, {:.0} fdatasyncs a second, {:.0} synced batches of 64 records a second",
        ceilings.cores, ceilings.fdatasyncs_per_s.median, ceilings.synced_batches_per_s.median
    ))?;
    for left_out in &report.left_out {
        output.line(format_args!("left out: {left_out}"))?;
    }
    Ok(())
}

fn ms(middle: Middle) -> String {
    format!("{:.2} ms", middle.median)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

fn cells(row: &Row) -> [String; 12] {
    let etcd = |cell: fn(&Figure) -> String| row.etcd.as_ref().map_or_else(String::new, cell);
    let errors = |figure: &Option<Figure>| figure.as_ref().map_or(0, |figure| figure.errors);
    [
        row.name.clone(),
        format!("{:.0}", row.menagerie.operations_per_s.median),
        ms(row.menagerie.p50_ms),
        ms(row.menagerie.p99_ms),
        ms(row.menagerie.p999_ms),
        etcd(|figure| format!("{:.0}", figure.operations_per_s.median)),
        etcd(|figure| ms(figure.p50_ms)),
        etcd(|figure| ms(figure.p99_ms)),
        ratio(row.to_etcd),
        ratio(row.to_ceiling),
        format!("{:.0} %", row.menagerie.operations_per_s.spread_percent()),
        format!("{}+{}", row.menagerie.errors, errors(&row.etcd)),
    ]
}

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment
        .add_template("report.html", PAGE)
        .context("read the template of the report")?;
    let page = environment
        .get_template("report.html")
        .context("read the template of the report")?;
    let throughput = chart(
        report,
        "Operations a second",
        |figure| figure.operations_per_s,
        "",
    );
    let latency = chart(
        report,
        "Latency that 99 of 100 stay below",
        |figure| figure.p99_ms,
        " ms",
    );
    let report = Serde(report);
    let values = context! { report, throughput, latency };
    page.render(values).context("write the report")
}

/// A chart for each number of clients, since a scale for all would hide the small ones.
fn chart(report: &Report, title: &str, of: fn(&Figure) -> Middle, unit: &str) -> Vec<(String, String)> {
    let mut charts = Vec::new();
    let mut clients: Vec<u32> = report.rows.iter().map(|row| row.clients).collect();
    clients.sort_unstable();
    clients.dedup();
    for clients in clients {
        let rows = report.rows.iter().filter(|row| row.clients == clients);
        let groups: Vec<Group> = rows.map(|row| group(row, of, unit)).collect();
        let title = format!("{title}, {clients} client{}", if clients == 1 { "" } else { "s" });
        let drawn = bars(&title, &groups);
        charts.push((title, drawn));
    }
    charts
}

fn group(row: &Row, of: fn(&Figure) -> Middle, unit: &str) -> Group {
    let sides = [
        ("ours", Some(&row.menagerie)),
        ("etcd", row.etcd.as_ref()),
        ("ceiling", row.ceiling.as_ref()),
    ];
    let bar = |(class, figure): (&'static str, Option<&Figure>)| {
        let Middle { median, min, max } = of(figure?);
        let digits = if median < 100.0 { 2 } else { 0 };
        Some(Bar {
            class,
            value: median,
            min,
            max,
            text: format!("{median:.digits$}{unit}"),
        })
    };
    Group {
        name: row.name.clone(),
        bars: sides.into_iter().filter_map(bar).collect(),
    }
}
