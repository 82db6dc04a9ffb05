//! What the store is to reach in a measurement, and whether it did; the comparison and the failovers say it alike.
//! Invariant: whether a goal is reached follows from its own two figures; one that is no number reaches nothing, nor
//! does a goal that is not judged.

use serde::Serialize;

use crate::context::Context;

/// The lowest and the highest that single rounds gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) max: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) measured: f64,
    /// Of that figure, where it has rounds.
    pub(super) spread: Option<Spread>,
    pub(super) wanted: f64,
    pub(super) at_most: bool,
    pub(super) reached: bool,
    /// Why it is not judged, although it was measured.
    pub(super) not_judged: Option<String>,
}

impl Goal {
    pub(super) fn at_most(what: &str, measured: f64, wanted: f64) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            spread: None,
            wanted,
            at_most: true,
            reached: measured <= wanted,
            not_judged: None,
        }
    }

    pub(super) fn at_least(what: &str, measured: f64, wanted: f64) -> Self {
        Self {
            what: what.to_owned(),
            measured,
            spread: None,
            wanted,
            at_most: false,
            reached: measured >= wanted,
            not_judged: None,
        }
    }

    /// Not judged if there is a reason against it.
    pub(super) fn unless(self, not_judged: Option<String>) -> Self {
        Self {
            reached: self.reached && not_judged.is_none(),
            not_judged,
            ..self
        }
    }

    pub(super) fn between(self, spread: Option<Spread>) -> Self {
        Self { spread, ..self }
    }

    fn figure(&self) -> String {
        let measured = format!("{:.2}", self.measured);
        match self.spread {
            Some(Spread { min, max }) => format!("{measured} ({min:.2}–{max:.2})"),
            None => measured,
        }
    }

    fn verdict(&self) -> String {
        match &self.not_judged {
            Some(why) => format!("NOT JUDGED: {why}"),
            None if self.reached => "reached".to_owned(),
            None => "NOT REACHED".to_owned(),
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
                goal.figure(),
                format!("{sign} {}", goal.wanted),
                goal.verdict(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::{Goal, Spread};

    #[test]
    fn the_border_itself_is_reached() {
        assert!(Goal::at_most("a", 50.0, 50.0).reached && !Goal::at_most("a", 50.1, 50.0).reached);
        assert!(Goal::at_least("a", 3.0, 3.0).reached && !Goal::at_least("a", 2.9, 3.0).reached);
        assert!(!Goal::at_most("a", f64::NAN, 1.0).reached && !Goal::at_least("a", f64::NAN, 1.0).reached);
    }

    #[test]
    fn a_figure_of_rounds_tells_how_far_they_lay_apart() {
        let goal = Goal::at_most("a", 1.0, 2.0);
        assert_eq!(goal.figure(), "1.00");
        let spread = Spread { min: 0.5, max: 1.25 };
        assert_eq!(goal.between(Some(spread)).figure(), "1.00 (0.50–1.25)");
    }

    #[test]
    fn what_is_not_judged_is_not_reached() {
        let goal = Goal::at_most("a", 1.0, 2.0);
        assert!(goal.clone().unless(None).reached);
        let not_judged = goal.unless(Some("half of all calls failed".to_owned()));
        assert!(!not_judged.reached);
        assert_eq!(not_judged.verdict(), "NOT JUDGED: half of all calls failed");
    }
}
