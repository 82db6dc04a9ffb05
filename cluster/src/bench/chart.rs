//! Bars, as SVG: for a page that says how they look, or as a picture of their own.
//! Invariant: bars of one chart share one scale that begins at zero, so that lengths can be compared by eye.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const NUMBERS: f64 = 110.0;
const BAR: f64 = 13.0;
const GAP: f64 = 12.0;
const TITLE: f64 = 24.0;
/// How a picture looks that no page is around.
const LOOK: &str = r##"<style>svg { font: 11px system-ui, sans-serif } line { stroke: #222; stroke-width: 1.5 } .ours { fill: #2f7d5b } .etcd { fill: #4a78b5 }</style><rect width="100%" height="100%" fill="#fff"/>"##;

/// One group of bars under one name: class for its colour, value, and how far its rounds lay apart.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
}

pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) value: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) text: String,
}

pub(super) fn bars(title: &str, groups: &[Group]) -> String {
    draw(title, groups, String::new(), 4.0)
}

/// With its title and its look inside.
pub(super) fn picture(title: &str, groups: &[Group]) -> String {
    let head = format!(r#"{LOOK}<text x="0" y="14">{}</text>"#, escape(title));
    draw(title, groups, head, TITLE)
}

fn draw(title: &str, groups: &[Group], head: String, top: f64) -> String {
    let values = groups
        .iter()
        .flat_map(|group| &group.bars)
        .map(|bar| bar.value.max(bar.max));
    let longest = values.fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / longest;
    let (mut body, mut y) = (head, top);
    for group in groups {
        let name = escape(&group.name);
        // A string takes everything that is written into it.
        let _ = write!(body, r#"<text x="0" y="{:.1}">{name}</text>"#, y + BAR - 2.0);
        for bar in &group.bars {
            let (class, width) = (bar.class, bar.value * scale);
            let (from, to) = (LABELS + bar.min * scale, LABELS + bar.max * scale);
            let middle = y + BAR / 2.0;
            let _ = write!(
                body,
                r#"<rect class="{class}" x="{LABELS}" y="{y:.1}" width="{width:.1}" height="{:.1}"/><line x1="{from:.1}" x2="{to:.1}" y1="{middle:.1}" y2="{middle:.1}"/><text x="{:.1}" y="{:.1}" class="number">{}</text>"#,
                BAR - 1.0,
                to.max(LABELS + width) + 5.0,
                y + BAR - 2.0,
                escape(&bar.text),
            );
            y += BAR;
        }
        y += GAP;
    }
    let title = escape(title);
    format!(
        r#"<svg role="img" aria-label="{title}" viewBox="0 0 {WIDTH} {y:.0}" xmlns="http://www.w3.org/2000/svg">{body}</svg>"#
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room() {
        let bar = |value: f64| Bar {
            class: "ours",
            value,
            min: value,
            max: value,
            text: "a<b".to_owned(),
        };
        let group = Group {
            name: "one".to_owned(),
            bars: vec![bar(1.0), bar(2.0)],
        };
        let svg = bars("all", &[group]);
        assert!(
            svg.contains(r#"width="250.0""#) && svg.contains(r#"width="500.0""#),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b"), "{svg}");
        assert!(!svg.contains("<style>"), "its page has a style: {svg}");
        let group = Group {
            name: "one".to_owned(),
            bars: vec![bar(1.0)],
        };
        let alone = picture("a & b", &[group]);
        assert!(
            alone.contains("<style>") && alone.contains(">a &amp; b</text>"),
            "{alone}"
        );
    }
}
