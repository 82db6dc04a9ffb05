//! What the store is to reach, in ratios of one run, and whether it did.
//! Invariant: what was not measured is not judged, nor are figures of which too many calls failed, since they tell only
//! of those that did not, nor those of a generator that could do no more, since they tell of the generator.

use super::super::closed_loop::Figures;
use super::super::goal::{Goal, Spread};
use super::report::{Figure, Report, ratio};

/// What is divided by what.
enum Ratio {
    /// Operations a second to those of etcd.
    ToEtcd(&'static str),
    /// Operations a second to those of the server that does nothing.
    ToCeiling(&'static str),
    /// The median latency to that of etcd.
    P50(&'static str),
    P99(&'static str),
    /// Operations a second of one case to those of another.
    Cases(&'static str, &'static str),
    /// Memory of a node with so many keys to that of etcd: what is mapped from no file. etcd maps its database, and so
    /// what the kernel keeps of it counts as its memory; what the kernel keeps of files that are read, as the store
    /// does, is nobody's, though it takes the same room. What either cannot give back is what can be compared.
    Memory(u32),
}

/// Of all calls, one in a thousand.
const ERROR_SHARE_MAX: f64 = 0.001;

/// Of the time of its one thread. A generator that is busier than that may be what the figures are bound by.
const GENERATOR_SHARE_MAX: f64 = 0.9;

const LEAST: bool = false;
const MOST: bool = true;

/// The server that does nothing, as it is called.
const CEILING: &str = "no-op";

const GOALS: [(&str, Ratio, f64, bool); 13] = [
    ("puts, 64 clients, to etcd", Ratio::ToEtcd("put-64"), 3.0, LEAST),
    (
        "p99 of puts, 64 clients, to etcd",
        Ratio::P99("put-64"),
        0.4,
        MOST,
    ),
    ("puts, 256 clients, to etcd", Ratio::ToEtcd("put-256"), 3.0, LEAST),
    (
        "p99 of puts, 256 clients, to etcd",
        Ratio::P99("put-256"),
        0.4,
        MOST,
    ),
    (
        "latency of a put, one client, to etcd",
        Ratio::P50("put-1"),
        0.7,
        MOST,
    ),
    (
        "linearizable gets, 64 clients, to etcd",
        Ratio::ToEtcd("get-64"),
        3.0,
        LEAST,
    ),
    (
        "linearizable gets, 256 clients, to etcd",
        Ratio::ToEtcd("get-256"),
        3.0,
        LEAST,
    ),
    (
        "contended counter to etcd's compare-and-set loop",
        Ratio::ToEtcd("counter-64"),
        90.0,
        LEAST,
    ),
    (
        "gets, 64 clients, to the no-op server",
        Ratio::ToCeiling("get-64"),
        0.7,
        LEAST,
    ),
    (
        "puts, 64 clients, to the no-op server",
        Ratio::ToCeiling("put-64"),
        0.35,
        LEAST,
    ),
    (
        "puts among 1 000 000 keys to an empty store",
        Ratio::Cases("put-64-1m", "put-64"),
        0.8,
        LEAST,
    ),
    (
        "gets among 1 000 000 keys to an empty store",
        Ratio::Cases("get-64-1m", "get-64"),
        0.8,
        LEAST,
    ),
    (
        "memory of a node, without mapped files, at 1 000 000 keys to etcd",
        Ratio::Memory(1_000_000),
        1.0,
        MOST,
    ),
];

pub(super) fn judge(report: &Report) -> Vec<Goal> {
    let goals = GOALS.into_iter().filter_map(|(what, ratio, wanted, at_most)| {
        let measured = ratio.measured(report)?;
        let goal = if at_most {
            Goal::at_most(what, measured, wanted)
        } else {
            Goal::at_least(what, measured, wanted)
        };
        let goal = goal.between(ratio.spread(report));
        Some(goal.unless(ratio.hindrance(report)))
    });
    goals.collect()
}

impl Ratio {
    fn measured(&self, report: &Report) -> Option<f64> {
        let row = |name: &str| report.rows.iter().find(|row| row.name == name);
        let speed = |name: &str| Some(row(name)?.menagerie.operations_per_s.median);
        match *self {
            Self::ToEtcd(name) => row(name)?.ratios.to_etcd,
            Self::ToCeiling(name) => row(name)?.ratios.to_ceiling,
            Self::P50(name) => row(name)?.ratios.p50_to_etcd,
            Self::P99(name) => row(name)?.ratios.p99_to_etcd,
            Self::Cases(case, other) => ratio(speed(case)?, speed(other)?),
            Self::Memory(keys) => {
                let memory = report.memory.iter().find(|memory| memory.keys == keys)?;
                let (ours, etcd) = (memory.menagerie_anonymous_bytes, memory.etcd_anonymous_bytes?);
                // A kernel that does not count it says nothing, and so nothing is judged.
                (ours > 0 && etcd > 0).then(|| bytes(ours) / bytes(etcd))
            }
        }
    }

    /// Of the single rounds; those of two cases do not belong together, and memory is looked at once.
    fn spread(&self, report: &Report) -> Option<Spread> {
        let row = |name: &str| report.rows.iter().find(|row| row.name == name);
        let latency = |name: &str, of: fn(&Figures) -> f64| {
            let row = row(name)?;
            row.menagerie.spread_to(row.etcd.as_ref()?, of)
        };
        match *self {
            Self::ToEtcd(name) => row(name)?.ratios.to_etcd_spread,
            Self::ToCeiling(name) => row(name)?.ratios.to_ceiling_spread,
            Self::P50(name) => latency(name, |figures| figures.p50_ms),
            Self::P99(name) => latency(name, |figures| figures.p99_ms),
            Self::Cases(..) | Self::Memory(_) => None,
        }
    }

    /// Why it cannot be judged by what was measured.
    fn hindrance(&self, report: &Report) -> Option<String> {
        let row = |name: &str| report.rows.iter().find(|row| row.name == name);
        let ours = |name| Some(&row(name)?.menagerie);
        let etcd = |name| row(name)?.etcd.as_ref();
        let ceiling = |name| row(name)?.ceiling.as_ref();
        let sources = match *self {
            Self::ToEtcd(name) | Self::P50(name) | Self::P99(name) => {
                [(name, "the store", ours(name)), (name, "etcd", etcd(name))]
            }
            Self::ToCeiling(name) => {
                let ceiling = ceiling(name);
                [(name, "the store", ours(name)), (name, CEILING, ceiling)]
            }
            Self::Cases(name, other) => {
                let base = ours(other);
                [(name, "the store", ours(name)), (other, "the store", base)]
            }
            Self::Memory(_) => return None,
        };
        sources
            .into_iter()
            .find_map(|(name, side, figure)| hindrance_of(figure?, name, side))
    }
}

fn hindrance_of(figure: &Figure, name: &str, side: &str) -> Option<String> {
    let failed = figure.error_share;
    if failed > ERROR_SHARE_MAX {
        let percent = 100.0 * failed;
        return Some(format!("{percent:.2} % of the calls of {name} to {side} failed"));
    }
    let busy = figure.generator_share.median;
    // What the same generator can do at most with a server that does nothing is just what a ceiling is.
    (busy > GENERATOR_SHARE_MAX && side != CEILING).then(|| {
        let percent = 100.0 * busy;
        format!("the generator was busy for {percent:.0} % of the time of {name} with {side}")
    })
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::report::Row;
    use super::super::samples;
    use super::*;

    /// The word on the goal of puts of 64 clients, once the figures of that case were changed.
    fn judged(change: impl FnOnce(&mut Row)) -> Goal {
        judged_of("puts, 64 clients, to etcd", change)
    }

    fn judged_of(what: &str, change: impl FnOnce(&mut Row)) -> Goal {
        let mut report = samples::report();
        let rows = report.rows.iter_mut();
        for figure in rows.flat_map(|row| {
            row.etcd
                .iter_mut()
                .chain(&mut row.ceiling)
                .chain([&mut row.menagerie])
        }) {
            figure.error_share = 0.0;
        }
        change(report.rows.iter_mut().find(|row| row.name == "put-64").unwrap());
        let mut goals = judge(&report).into_iter();
        goals.find(|goal| goal.what == what).unwrap()
    }

    #[test]
    fn a_goal_is_not_judged_by_those_calls_that_did_not_fail() {
        let etcd = |row: &mut Row, share| row.etcd.as_mut().unwrap().error_share = share;
        assert!(judged(|_| {}).reached);
        assert!(judged(|row| row.menagerie.error_share = 0.001).reached);
        assert!(judged(|row| etcd(row, 0.001)).reached);
        let ours = judged(|row| row.menagerie.error_share = 0.002);
        assert!(!ours.reached);
        assert_eq!(
            ours.not_judged.unwrap(),
            "0.20 % of the calls of put-64 to the store failed"
        );
        let theirs = judged(|row| etcd(row, 0.002));
        assert_eq!(
            theirs.not_judged.unwrap(),
            "0.20 % of the calls of put-64 to etcd failed"
        );
    }

    #[test]
    fn a_goal_is_not_judged_by_a_generator_that_could_do_no_more() {
        // For nearly all of its four seconds.
        let full = || {
            let mut round = samples::round(123_456.0);
            round.seen.errors.clear();
            round.seen.generator_cpu_s = 3.84;
            Figure::of(vec![round]).unwrap()
        };
        let ours = judged(|row| row.menagerie = full());
        assert!(!ours.reached);
        assert_eq!(
            ours.not_judged.unwrap(),
            "the generator was busy for 96 % of the time of put-64 with the store"
        );
        let theirs = judged(|row| row.etcd = Some(full()));
        assert_eq!(
            theirs.not_judged.unwrap(),
            "the generator was busy for 96 % of the time of put-64 with etcd"
        );
        let fill = |row: &mut Row| row.ceiling = Some(full());
        let to_ceiling = judged_of("puts, 64 clients, to the no-op server", fill);
        assert_eq!(to_ceiling.not_judged, None);
    }

    #[test]
    fn memory_is_compared_without_mapped_files_where_the_kernel_counts_them() {
        let mut report = samples::report();
        report.memory[0].keys = 1_000_000;
        let measured = Ratio::Memory(1_000_000).measured(&report).unwrap();
        assert!((measured - 40.0 / 30.0).abs() < 1e-9, "{measured}");
        report.memory[0].etcd_anonymous_bytes = Some(0);
        assert_eq!(Ratio::Memory(1_000_000).measured(&report), None);
    }

    #[test]
    fn the_share_is_of_all_calls() {
        let mut round = samples::round(1.0);
        round.seen.figures.operations = 999;
        round.seen.errors = [("no answer".to_owned(), 1)].into();
        let figure = Figure::of(vec![round.clone(), round]).unwrap();
        assert!((figure.error_share - 0.001).abs() < 1e-9);
    }
}
