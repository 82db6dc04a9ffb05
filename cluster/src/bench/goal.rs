//! What the store is to reach in a measurement, and whether it did; the comparison and the failovers say it alike.
//! Invariant: whether a goal is reached follows from its own two figures; one that is no number reaches nothing.

use serde::Serialize;

use crate::context::Context;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) measured: f64,
    pub(super) wanted: f64,
    pub(super) at_most: bool,
    pub(super) reached: bool,
}

impl Goal {
    pub(super) fn at_most(what: &str, measured: f64, wanted: f64) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            wanted,
            at_most: true,
            reached: measured <= wanted,
        }
    }

    pub(super) fn at_least(what: &str, measured: f64, wanted: f64) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            wanted,
            at_most: false,
            reached: measured >= wanted,
        }
    }
}

pub(super) fn show(context: &Context, goals: &[Goal]) -> std::io::Result<()> {
    context.output.table(
        ["GOAL", "MEASURED", "WANTED", ""],
        goals.iter().map(|goal| {
            let sign = if goal.at_most { "≤" } else { "≥" };
            [
                goal.what.clone(),
                format!("{:.2}", goal.measured),
                format!("{sign} {}", goal.wanted),
                if goal.reached { "reached" } else { "NOT REACHED" }.to_owned(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::Goal;

    #[test]
    fn the_border_itself_is_reached() {
        assert!(Goal::at_most("a", 50.0, 50.0).reached && !Goal::at_most("a", 50.1, 50.0).reached);
        assert!(Goal::at_least("a", 3.0, 3.0).reached && !Goal::at_least("a", 2.9, 3.0).reached);
        assert!(!Goal::at_most("a", f64::NAN, 1.0).reached && !Goal::at_least("a", f64::NAN, 1.0).reached);
    }
}
