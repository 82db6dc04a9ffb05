//! Which of all faults a run has not tried, how long it waits for their turn, and whether it may pass without them.
//! Invariant: a run that was to try everything has passed only if it has, and one that was to try certain faults only if
//! each of them happened, but for those that need root where it was to do without; one of which less was asked, or that
//! nobody who is root has made, says before all else what it did not try.

use std::time::Duration;

use serde::Serialize;

use super::faults::{ALL, Kind};

/// A fault, and the calm behind it, are over within this on a machine that is busy.
const TURN_MAX: Duration = Duration::from_secs(20);

/// What was asked of a run.
pub(super) struct Asked {
    pub(super) kinds: Vec<Kind>,
    pub(super) demand: Demand,
}

/// What must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// All that there is, by root, and for as long as that takes.
    Everything,
    /// Each that was named, but those that need root where they were to be left out.
    Named { without_root: bool },
    /// As much as time and machine allow.
    Anything,
}

impl Asked {
    /// Whether there is one more fault to be caused. So many have not had their turn yet: where each must, a slow machine
    /// gets the time for that, but not without end.
    pub(super) fn goes_on(&self, lasted: Duration, time: Duration, untried: usize) -> bool {
        let turns = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        let waits = self.demand != Demand::Anything && untried > 0;
        lasted < time || (waits && lasted < time.saturating_add(TURN_MAX.saturating_mul(turns)))
    }
}

/// The kinds of fault that never happened, by why.
#[derive(Debug, Default, Serialize)]
pub(super) struct Untried {
    not_asked_for: Vec<Kind>,
    /// This machine does not let us cause them.
    impossible: Vec<Kind>,
    /// There was no time left, or they could not be caused; the next seed may begin with them.
    not_reached: Vec<Kind>,
}

impl Untried {
    pub(super) fn of(asked: &Asked, possible: &[Kind], happened: &[Kind]) -> Self {
        let mut untried = Self::default();
        for kind in ALL.into_iter().filter(|kind| !happened.contains(kind)) {
            let why = if !asked.kinds.contains(&kind) {
                &mut untried.not_asked_for
            } else if !possible.contains(&kind) {
                &mut untried.impossible
            } else {
                &mut untried.not_reached
            };
            why.push(kind);
        }
        untried
    }

    fn groups(&self) -> [(&'static str, &[Kind]); 3] {
        [
            ("not asked for", &self.not_asked_for),
            ("not possible here", &self.impossible),
            ("not reached", &self.not_reached),
        ]
    }

    fn count(&self) -> usize {
        self.groups().iter().map(|(_, kinds)| kinds.len()).sum()
    }

    /// `left_out` is what this machine does not let us do, also where another way was found.
    pub(super) fn may_pass(&self, demand: Demand, left_out: &[String]) -> bool {
        match demand {
            Demand::Everything => self.count() == 0 && left_out.is_empty(),
            Demand::Named { without_root } => {
                let mut impossible = self.impossible.iter();
                self.not_reached.is_empty() && impossible.all(|kind| without_root && kind.needs_root())
            }
            Demand::Anything => true,
        }
    }

    /// The first line of every verdict.
    pub(super) fn summary(&self, passed: bool, left_out: &[String]) -> String {
        let mut parts = vec![match (passed, self.count()) {
            (true, 0) => format!("passed: each of {} kinds of fault happened", ALL.len()),
            (true, count) => format!(
                "passed, as far as it went: {count} of {} kinds of fault were not tried",
                ALL.len()
            ),
            (false, 0) => format!("not passed; each of {} kinds of fault happened", ALL.len()),
            (false, count) => format!(
                "not passed; {count} of {} kinds of fault were not tried",
                ALL.len()
            ),
        }];
        for (why, kinds) in self.groups() {
            if !kinds.is_empty() {
                let words: Vec<String> = kinds.iter().map(|kind| kind.word()).collect();
                parts.push(format!("{why}: {}", words.join(", ")));
            }
        }
        parts.extend(left_out.iter().map(|what| format!("left out: {what}")));
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMED: Demand = Demand::Named { without_root: false };

    fn asked(kinds: &[Kind], demand: Demand) -> Asked {
        let kinds = kinds.to_vec();
        Asked { kinds, demand }
    }

    #[test]
    fn a_run_that_was_to_try_everything_passes_only_if_it_has() {
        let everything = asked(&ALL, Demand::Everything);
        let all = Untried::of(&everything, &ALL, &ALL);
        assert!(all.may_pass(Demand::Everything, &[]));
        assert_eq!(
            all.summary(true, &[]),
            "passed: each of 34 kinds of fault happened"
        );
        // Links that are proxies cause each kind, but not in each way.
        assert!(!all.may_pass(Demand::Everything, &["packets that get lost".to_owned()]));
        let last = [ALL[33]];
        let late = Untried::of(&everything, &ALL, &ALL[..33]);
        assert_eq!(late.not_reached, last);
        assert!(!late.may_pass(Demand::Everything, &[]));
        let left = Untried::of(&everything, &ALL[..33], &ALL[..33]);
        assert_eq!(left.impossible, last);
        assert!(!left.may_pass(Demand::Everything, &[]));
    }

    #[test]
    fn a_run_passes_only_if_each_fault_that_was_named_happened() {
        let named = asked(&ALL[..3], NAMED);
        let left_out = ["full disks: they need root".to_owned()];
        let all = Untried::of(&named, &ALL, &ALL[..3]);
        assert!(all.may_pass(NAMED, &left_out));
        let late = Untried::of(&named, &ALL, &ALL[..2]);
        assert_eq!(late.not_reached, [ALL[2]]);
        assert!(!late.may_pass(NAMED, &left_out));
        let left = Untried::of(&named, &ALL[..2], &ALL[..2]);
        assert!(!left.may_pass(NAMED, &left_out));
        let said = left.summary(false, &[]);
        assert!(said.starts_with("not passed; ") && said.contains("not possible here: kill-two"));
    }

    /// Who was told to do without root does; what is missing for another reason was asked for all the same.
    #[test]
    fn a_run_without_root_passes_without_the_faults_that_need_it() {
        const WITHOUT: Demand = Demand::Named { without_root: true };
        for (kind, needs_root) in [
            (Kind::PowerLossOfOne, true),
            (Kind::PowerLossAtStep, true),
            (Kind::DiskFull, true),
            (Kind::KillAtStep, false),
            (Kind::SlowSync, false),
        ] {
            let asked = asked(&[Kind::KillLeader, kind], WITHOUT);
            let happened = [Kind::KillLeader];
            let left = Untried::of(&asked, &happened, &happened);
            assert_eq!(left.may_pass(WITHOUT, &[]), needs_root, "{kind:?}");
            assert!(!left.may_pass(NAMED, &[]), "{kind:?}");
            let late = Untried::of(&asked, &ALL, &happened);
            assert!(!late.may_pass(WITHOUT, &[]), "{kind:?}");
        }
    }

    #[test]
    fn a_run_that_was_asked_for_less_says_what_it_did_not_try() {
        let less = asked(&ALL[..32], Demand::Anything);
        let left_out = ["full disks: they need root".to_owned()];
        let untried = Untried::of(&less, &ALL[..31], &ALL[..30]);
        assert!(untried.may_pass(Demand::Anything, &left_out));
        assert_eq!(
            untried.summary(true, &left_out),
            "passed, as far as it went: 4 of 34 kinds of fault were not tried; not asked for: starved, bad-guests; \
             not possible here: power-loss-at-step; not reached: kill-at-step; left out: full disks: they need root"
        );
        assert!(
            untried
                .summary(false, &left_out)
                .starts_with("not passed; 4 of 34")
        );
    }

    #[test]
    fn a_run_goes_on_until_each_fault_had_its_turn_but_not_without_end() {
        const TIME: Duration = Duration::from_secs(6);
        let named = asked(&ALL[..2], NAMED);
        assert!(named.goes_on(Duration::ZERO, TIME, 0));
        assert!(!named.goes_on(TIME, TIME, 0));
        assert!(named.goes_on(TIME, TIME, 1));
        assert!(
            named.goes_on(Duration::ZERO, Duration::ZERO, 2),
            "none has happened"
        );
        let last = TIME + 2 * TURN_MAX;
        assert!(named.goes_on(last.saturating_sub(Duration::from_millis(1)), TIME, 1));
        assert!(!named.goes_on(last, TIME, 1));
        assert!(asked(&ALL, Demand::Everything).goes_on(last, TIME, 1));
        assert!(!asked(&ALL, Demand::Anything).goes_on(TIME, TIME, 33));
    }
}
