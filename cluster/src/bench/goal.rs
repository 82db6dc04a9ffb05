//! What the store is to reach in a measurement, and whether it did; the comparison and the failovers say it alike.
//! Invariant: whether a goal is reached follows from its own two figures; one that is no number reaches nothing, nor
//! does a goal that is not judged.

use serde::Serialize;

use crate::context::Context;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) measured: f64,
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
                format!("{:.2}", goal.measured),
                format!("{sign} {}", goal.wanted),
                goal.verdict(),
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

    #[test]
    fn what_is_not_judged_is_not_reached() {
        let goal = Goal::at_most("a", 1.0, 2.0);
        assert!(goal.clone().unless(None).reached);
        let not_judged = goal.unless(Some("half of all calls failed".to_owned()));
        assert!(!not_judged.reached);
        assert_eq!(not_judged.verdict(), "NOT JUDGED: half of all calls failed");
    }
}
