//! The figures for people: a table on the terminal, and a page with the same table and charts.
//! Invariant: every figure of the page stands in the JSON beside it too; here nothing is measured or judged.

use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::super::chart::{Bar, Group, bars};
use super::super::goal;
use super::report::{Figure, Middle, Ratios, Report, Row};
use crate::context::Context;

const PAGE: &str = include_str!("report.html");

const COLUMNS: [&str; 13] = [
    "CASE", "SIDE", "OPS/S", "SPREAD", "P50", "P99", "P99.9", "CPU/OP", "GEN", "B/OP", "ERRORS", "× NO-OP",
    "× SYNCS",
];

const LEGEND: [&str; 5] = [
    // What the generator takes is missing to those it measures, and it is not the same for either side.
    "CPU/OP: µs of the processors that a side's servers took for an operation; \
     GEN: those that the generator took from them",
    "CPU/OP and B/OP (sent to disks): with what a round left the servers to do, such as merging tables",
    "× etcd: the store's figure by etcd's; of OPS/S the more the better, of all others the less",
    "× NO-OP: OPS/S by those of a server that does nothing",
    "× SYNCS: OPS/S by what one disk can sync: of one client by fdatasyncs, of 64 by synced batches of 64 records",
];

pub(super) fn show(context: &Context, report: &Report) -> anyhow::Result<()> {
    let output = context.output;
    output.table(COLUMNS, report.rows.iter().flat_map(lines))?;
    for line in LEGEND {
        output.line(line)?;
    }
    if !report.services.is_empty() {
        output.line("")?;
        output.table(
            ["SERVICE", "OPS/S", "SPREAD", "P50", "P99", "ERRORS"],
            report.services.iter().map(|row| {
                [
                    row.name.clone(),
                    format!("{:.0}", row.operations_per_s.median),
                    spread(row.operations_per_s),
                    ms(row.p50_ms),
                    ms(row.p99_ms),
                    row.errors.to_string(),
                ]
            }),
        )?;
    }
    output.line("")?;
    output.table(
        [
            "MEMORY OF ONE SERVER AT",
            "MENAGERIE",
            "ETCD",
            "WITHOUT MAPPED FILES",
            "ETCD",
        ],
        report.memory.iter().map(|memory| {
            [
                format!("{} keys", memory.keys),
                mebibytes(memory.menagerie_bytes),
                memory.etcd_bytes.map_or_else(String::new, mebibytes),
                mebibytes(memory.menagerie_anonymous_bytes),
                memory.etcd_anonymous_bytes.map_or_else(String::new, mebibytes),
            ]
        }),
    )?;
    output.line("")?;
    goal::show(context, &report.goals)?;
    let ceilings = &report.ceilings;
    output.line(format_args!(
        "\nthis machine: {} cores, {:.0} fdatasyncs a second, {:.0} synced batches of 64 records a second",
        ceilings.cores, ceilings.fdatasyncs_per_s.median, ceilings.synced_batches_per_s.median
    ))?;
    if let Some(version) = &report.etcd_version {
        output.line(format_args!("beside etcd {version}"))?;
    }
    for left_out in &report.left_out {
        output.line(format_args!("left out: {left_out}"))?;
    }
    Ok(())
}

fn ms(middle: Middle) -> String {
    let digits = if middle.median < 100.0 { 2 } else { 0 };
    format!("{:.digits$} ms", middle.median)
}

fn spread(middle: Middle) -> String {
    format!("{:.0} %", middle.spread_percent())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

/// A line for each side, one below the other, so that the two can be compared by eye, and below them what they are to
/// each other, each ratio under the two figures that it is of.
fn lines(row: &Row) -> Vec<[String; COLUMNS.len()]> {
    let ceilings = [row.ratios.to_ceiling, row.ratios.to_synced];
    let ours = cells(row, "menagerie", &row.menagerie, ceilings);
    let etcd = row.etcd.as_ref();
    let etcd = etcd.map(|figure| [cells(row, "etcd", figure, [None, None]), to_etcd(row)]);
    std::iter::once(ours).chain(etcd.into_iter().flatten()).collect()
}

fn to_etcd(row: &Row) -> [String; COLUMNS.len()] {
    let Ratios {
        to_etcd: rate,
        p50_to_etcd: p50,
        p99_to_etcd: p99,
        cpu_to_etcd: cpu,
        ..
    } = row.ratios;
    COLUMNS.map(|column| match column {
        "CASE" => row.name.clone(),
        "SIDE" => "× etcd".to_owned(),
        "OPS/S" => ratio(rate),
        "P50" => ratio(p50),
        "P99" => ratio(p99),
        "CPU/OP" => ratio(cpu),
        _ => String::new(),
    })
}

fn cells(row: &Row, side: &str, figure: &Figure, ratios: [Option<f64>; 2]) -> [String; COLUMNS.len()] {
    let [to_ceiling, to_synced] = ratios.map(ratio);
    [
        row.name.clone(),
        side.to_owned(),
        format!("{:.0}", figure.operations_per_s.median),
        spread(figure.operations_per_s),
        ms(figure.p50_ms),
        ms(figure.p99_ms),
        ms(figure.p999_ms),
        format!("{:.0}", figure.cpu_us_per_operation.median),
        format!("{:.0}", figure.generator_us_per_operation.median),
        format!("{:.0}", figure.written_bytes_per_operation.median),
        figure.errors.to_string(),
        to_ceiling,
        to_synced,
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

#[cfg(test)]
mod tests {
    use super::super::samples::{figure, report, round};
    use super::*;

    #[test]
    fn large_figures_fit_into_120_columns() {
        let mut widths = COLUMNS.map(|name| name.chars().count());
        for cells in report().rows.iter().flat_map(lines) {
            for (width, cell) in widths.iter_mut().zip(&cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        // Two spaces follow each column.
        let width: usize = widths.iter().map(|width| width + 2).sum();
        assert!(width <= 120, "{width}: {widths:?}");
        for line in LEGEND {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }

    #[test]
    fn ratios_stand_below_the_two_that_they_are_of() {
        let report = report();
        let told = |name: &str| {
            let row = report.rows.iter().find(|row| row.name == name).unwrap();
            lines(row).last().unwrap().join("|")
        };
        assert_eq!(told("put-64"), "put-64|× etcd|136.00||0.25|0.38||0.63|||||");
        assert_eq!(
            told("open-put-1000"),
            "open-put-1000|× etcd|||0.25|0.38||0.63|||||"
        );
        let puts = report.rows.iter().find(|row| row.name == "put-64").unwrap();
        assert_eq!(lines(puts)[0][11..], ["0.75", "0.13"]);
        assert_eq!(lines(puts)[1][11..], ["", ""]);
        let page = render(&report).unwrap();
        let row = page.split("<tr>").find(|row| row.contains("put-64<br>")).unwrap();
        for ratio in ["0.25", "0.38", "0.63"] {
            assert!(row.contains(&format!("<small>{ratio} × etcd</small>")), "{row}");
        }
    }

    #[test]
    fn what_servers_used_is_of_all_operations() {
        let [.., cpu, generator, bytes, _, _, _] =
            cells(&report().rows[0], "menagerie", &figure(), [None, None]);
        let told = (cpu.as_str(), generator.as_str(), bytes.as_str());
        assert_eq!(told, ("15000", "500", "200000"));
    }

    #[test]
    fn both_sides_tell_what_the_generator_took() {
        let mut report = report();
        report.rows.truncate(1);
        let mut round = round(1.0);
        round.seen.generator_cpu_s = 1.5;
        report.rows[0].etcd = Figure::of(vec![round]);
        let place = COLUMNS.iter().position(|name| *name == "GEN").unwrap();
        let told: Vec<String> = lines(&report.rows[0])
            .into_iter()
            .map(|cells| cells[place].clone())
            .collect();
        assert_eq!(told, ["500", "750", ""]);
        let page = render(&report).unwrap();
        assert!(page.contains("<td>500<td>750"), "{page}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json["rows"][0]["etcd"]["generator_us_per_operation"]["median"],
            750.0
        );
    }

    #[test]
    fn the_page_tells_how_far_rounds_lay_apart() {
        let page = render(&report()).unwrap();
        let row = page.split("<tr>").find(|row| row.contains("put-1<br>")).unwrap();
        assert_eq!(
            row.matches("123456<br><small>100001–150002</small>").count(),
            2,
            "{row}"
        );
        assert_eq!(row.matches("<small>0.5–150.25</small>").count(), 2, "{row}");
        assert!(page.contains("20<br><small>10–31</small>"), "{page}");
    }
}
