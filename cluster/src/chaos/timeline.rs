//! The verdict as a file, and a page that shows when what was broken and how much succeeded meanwhile.
//! Invariant: it shows the verdict and judges nothing.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use minijinja::value::Serde;
use minijinja::{Environment, context};

use super::Verdict;
use super::book::Book;

const PAGE: &str = include_str!("timeline.html");
const VERDICT: &str = "verdict.json";
const TIMELINE: &str = "timeline.html";
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 120.0;
const COLUMNS: usize = 500;

/// Removes what an earlier run has left: one that ends before its verdict would else seem to have that one's.
pub(super) fn forget(folder: &Path) -> anyhow::Result<()> {
    for name in [VERDICT, TIMELINE] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("remove the verdict of an earlier run");
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn write(folder: &Path, verdict: &Verdict, book: &Book) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).context("make the folder of the verdict")?;
    let json = serde_json::to_vec_pretty(verdict).context("write the verdict")?;
    std::fs::write(folder.join(VERDICT), json).context("write the verdict")?;
    let mut environment = Environment::new();
    environment
        .add_template("timeline.html", PAGE)
        .context("read the template of the timeline")?;
    let page = environment
        .get_template("timeline.html")
        .context("read the template of the timeline")?;
    let drawn = draw(verdict, &book.pages().successes);
    let verdict = Serde(verdict);
    let page = page
        .render(context! { verdict, drawn })
        .context("write the timeline")?;
    std::fs::write(folder.join(TIMELINE), page).context("write the timeline")
}

/// Bars of successes; behind them each fault from its begin to its end, and paler until all was well.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn draw(verdict: &Verdict, successes: &[u64]) -> String {
    let end = successes
        .iter()
        .copied()
        .chain(verdict.events.iter().map(|event| event.well_ms))
        .max();
    let end = end.unwrap_or(1).max(1);
    let mut columns = vec![0_u64; COLUMNS + 1];
    for at in successes {
        columns[usize::try_from(at * COLUMNS as u64 / end).unwrap_or(COLUMNS)] += 1;
    }
    let highest = columns.iter().copied().max().unwrap_or(1).max(1) as f64;
    let x = |at: u64| WIDTH * at as f64 / end as f64;
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg">"#);
    for event in &verdict.events {
        let (from, to, well) = (x(event.began_ms), x(event.ended_ms), x(event.well_ms));
        // A string takes everything that is written into it.
        let _ = write!(
            svg,
            r#"<rect class="well" x="{to:.1}" y="0" width="{:.1}" height="{HEIGHT}"/><rect class="fault" x="{from:.1}" y="0" width="{:.1}" height="{HEIGHT}"><title>{}</title></rect>"#,
            well - to,
            (to - from).max(1.0),
            event.fault.word(),
        );
    }
    let width = WIDTH / COLUMNS as f64;
    for (column, count) in columns.iter().enumerate() {
        let height = HEIGHT * *count as f64 / highest;
        let (left, top) = (column as f64 * width, HEIGHT - height);
        let _ = write!(
            svg,
            r#"<rect class="done" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
    }
    svg.push_str("</svg>");
    svg
}
