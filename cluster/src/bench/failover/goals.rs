//! How short the gaps are to be, and whether they were.
//! Invariant: what was not done is not judged.

use super::How;
use super::comparison::Kind;
use crate::bench::goal::Goal;

const KILL_TO_ETCD_MAX: f64 = 0.05;
const KILL_MEDIAN_MS_MAX: f64 = 50.0;
const TERM_MS_MAX: f64 = 50.0;
/// Nobody is told of it, so that the others must first find out.
const SILENT_MS_MAX: f64 = 600.0;

pub(super) fn judge(kinds: &[Kind]) -> Vec<Goal> {
    kinds.iter().flat_map(goals_of).collect()
}

fn goals_of(kind: &Kind) -> Vec<Goal> {
    let ours = &kind.menagerie;
    match kind.how {
        How::Kill => {
            let to_etcd = kind
                .to_etcd
                .map(|ratio| Goal::at_most("median gap after kill -9, to etcd", ratio, KILL_TO_ETCD_MAX));
            let median = Goal::at_most("median gap after kill -9, ms", ours.median_ms, KILL_MEDIAN_MS_MAX);
            to_etcd.into_iter().chain([median]).collect()
        }
        How::Term => {
            let failed = count(ours.failures.failed_tries);
            vec![
                Goal::at_most("longest gap after SIGTERM, ms", ours.max_ms, TERM_MS_MAX),
                Goal::at_most(
                    "requests that failed from SIGTERM until the node was back",
                    failed,
                    0.0,
                ),
            ]
        }
        How::Pause => vec![Goal::at_most(
            "longest gap after a pause, ms",
            ours.max_ms,
            SILENT_MS_MAX,
        )],
        How::Cut => vec![Goal::at_most(
            "longest gap after a network cut, ms",
            ours.max_ms,
            SILENT_MS_MAX,
        )],
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for people to read")]
fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::{Failures, Fault, Report};
    use super::*;

    fn report(how: How, gaps_ms: &[f64], failed_tries: u64) -> Report {
        let fault = |gap_ms: &f64| Fault {
            leader: "n1".to_owned(),
            gap_ms: *gap_ms,
            recovered: true,
            gap_after_heal_ms: None,
            failures: Failures {
                failed_tries,
                // A node that is gone takes no connection; that is no request that failed.
                unreached_tries: 7,
            },
        };
        Report::of(how, gaps_ms.iter().map(fault).collect(), 9)
    }

    fn judged(kinds: &[Kind]) -> Vec<(String, bool)> {
        let goals = judge(kinds).into_iter();
        goals.map(|goal| (goal.what, goal.reached)).collect()
    }

    #[test]
    fn a_kill_is_judged_by_its_median_and_beside_etcd_where_there_is_one() {
        let kill = |gaps_ms| report(How::Kill, gaps_ms, 3);
        let beside = Kind::new(
            How::Kill,
            kill(&[20.0, 49.0, 90.0]),
            Some(kill(&[900.0, 970.0, 1500.0])),
        );
        let alone = Kind::new(How::Kill, kill(&[20.0, 49.0, 90.0]), None);
        assert_eq!(
            judged(&[beside]),
            [
                ("median gap after kill -9, to etcd".to_owned(), false),
                ("median gap after kill -9, ms".to_owned(), true),
            ]
        );
        assert_eq!(
            judged(&[alone]),
            [("median gap after kill -9, ms".to_owned(), true)]
        );
    }

    #[test]
    fn the_others_are_judged_by_their_longest() {
        let kind = |how, gaps_ms, failed| Kind::new(how, report(how, gaps_ms, failed), None);
        let reached: Vec<bool> = judged(&[
            kind(How::Term, &[10.0, 50.0], 0),
            kind(How::Term, &[10.0, 51.0], 1),
            kind(How::Pause, &[590.0, 600.0], 2),
            kind(How::Cut, &[590.0, 601.0], 2),
        ])
        .into_iter()
        .map(|(_, reached)| reached)
        .collect();
        assert_eq!(reached, [true, true, false, false, true, false]);
    }
}
