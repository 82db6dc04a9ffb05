//! The table as a picture: bars for what a write costs, words for what survives.

use std::fmt::Write as _;

use super::Report;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const BAR_MAX: f64 = 300.0;
const LINE: f64 = 46.0;
const TOP: f64 = 56.0;

pub(super) fn draw(report: &Report) -> String {
    let most = report.rows.iter().map(|row| row.writes_per_s).fold(1.0, f64::max);
    let mut y = TOP;
    let mut body = String::new();
    for row in &report.rows {
        let bar = BAR_MAX * row.writes_per_s / most;
        let (text, under) = (y + 15.0, y + 32.0);
        let (setup, writes, p99) = (row.setup, row.writes_per_s, row.write_p99_ms);
        let behind = LEFT + bar + 8.0;
        let (disk, on, all) = (
            row.loss.of_one_disk(),
            row.loss.goes_on(),
            row.loss.of_all_nodes(),
        );
        let drawn = writeln!(
            body,
            r##"<text x="{x}" y="{text}" text-anchor="end">{setup}</text>
<rect x="{LEFT}" y="{y}" width="{bar:.1}" height="20" rx="3" fill="#3b6ea5"/>
<text x="{behind:.1}" y="{text}">{writes:.0} writes/s, p99 {p99:.1} ms</text>
<text x="{LEFT}" y="{under}" class="small">leader's disk lost: {disk}; writes go on {on}; all nodes lost: {all}</text>"##,
            x = LEFT - 10.0,
        );
        drawn.expect("writing to memory does not fail");
        y += LINE;
    }
    let height = y + 10.0;
    let (clients, rounds) = (report.clients, report.rounds);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13" fill="#222">
<style>.small {{ font-size: 11px; fill: #666; }}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="20" y="26" font-size="16" font-weight="600">What redundancy costs, and what it saves</text>
<text x="20" y="43" class="small">{clients} clients, 256 bytes a value, one machine, medians of {rounds} rounds: the ratios are what counts</text>
{body}</svg>
"##
    )
}
