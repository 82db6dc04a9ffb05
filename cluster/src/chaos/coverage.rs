//! Which of all faults a run has not tried, and whether it may pass without them.
//! Invariant: a run that was to try everything has passed only if it has; one of which less was asked, or that nobody
//! who is root has made, says before all else what it did not try.

use serde::Serialize;

use super::faults::{ALL, Kind};

/// What was asked of a run.
pub(super) struct Asked {
    pub(super) kinds: Vec<Kind>,
    /// All that there is, by root, and for as long as that takes.
    pub(super) is_everything: bool,
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
    pub(super) fn may_pass(&self, asked: &Asked, left_out: &[String]) -> bool {
        !asked.is_everything || (self.count() == 0 && left_out.is_empty())
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

    fn asked(kinds: &[Kind], is_everything: bool) -> Asked {
        let kinds = kinds.to_vec();
        Asked { kinds, is_everything }
    }

    #[test]
    fn a_run_that_was_to_try_everything_passes_only_if_it_has() {
        let everything = asked(&ALL, true);
        let all = Untried::of(&everything, &ALL, &ALL);
        assert!(all.may_pass(&everything, &[]));
        assert_eq!(
            all.summary(true, &[]),
            "passed: each of 34 kinds of fault happened"
        );
        // Links that are proxies cause each kind, but not in each way.
        assert!(!all.may_pass(&everything, &["packets that get lost".to_owned()]));
        let last = [ALL[33]];
        let late = Untried::of(&everything, &ALL, &ALL[..33]);
        assert_eq!(late.not_reached, last);
        assert!(!late.may_pass(&everything, &[]));
        let left = Untried::of(&everything, &ALL[..33], &ALL[..33]);
        assert_eq!(left.impossible, last);
        assert!(!left.may_pass(&everything, &[]));
    }

    #[test]
    fn a_run_that_was_asked_for_less_says_what_it_did_not_try() {
        let less = asked(&ALL[..32], false);
        let left_out = ["full disks: they need root".to_owned()];
        let untried = Untried::of(&less, &ALL[..31], &ALL[..30]);
        assert!(untried.may_pass(&less, &left_out));
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
}
