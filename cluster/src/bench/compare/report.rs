//! The figures of a run: rounds, their medians and spreads, and ratios.
//! Invariant: a figure is the median of its rounds; a ratio is one of medians of the same run, never of another, and
//! its spread that of rounds which were measured side by side.

use serde::Serialize;

use super::super::closed_loop::Figures;
use super::super::drive::Seen;
use super::super::goal::{Goal, Spread};
pub(super) use super::super::middle::Middle;
use super::ceilings::BATCH;
use crate::arena::Usage;

/// One measurement of one side.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    /// The leader's place among those that were asked, of whom the first client asks the first; a ceiling has none.
    pub(super) leader_at: Option<usize>,
    #[serde(flatten)]
    pub(super) seen: Seen,
    /// Until the servers were idle again.
    pub(super) usage: Usage,
}

/// All rounds of one side in one case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) operations_per_s: Middle,
    pub(super) p50_ms: Middle,
    pub(super) p99_ms: Middle,
    pub(super) p999_ms: Middle,
    pub(super) errors: u64,
    /// Of all calls, from 0 to 1.
    pub(super) error_share: f64,
    /// Processor time of all servers of the side, by operation, with what the operations left them to do.
    pub(super) cpu_us_per_operation: Middle,
    /// The same of the generator, which runs beside them.
    pub(super) generator_us_per_operation: Middle,
    /// How much of the time its thread was busy, from 0 to 1.
    pub(super) generator_share: Middle,
    /// What all servers sent to their disks, by operation, with what the operations left them to do.
    pub(super) written_bytes_per_operation: Middle,
    pub(super) resident_bytes: u64,
    pub(super) rounds: Vec<Round>,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people to read")]
impl Figure {
    pub(super) fn of(rounds: Vec<Round>) -> Option<Self> {
        let middle = |value: fn(&Round) -> f64| Middle::of(rounds.iter().map(value));
        let errors: u64 = rounds.iter().flat_map(|round| round.seen.errors.values()).sum();
        let done: u64 = rounds.iter().map(|round| round.seen.figures.operations).sum();
        Some(Self {
            operations_per_s: middle(|round| round.seen.figures.operations_per_s)?,
            p50_ms: middle(|round| round.seen.figures.p50_ms)?,
            p99_ms: middle(|round| round.seen.figures.p99_ms)?,
            p999_ms: middle(|round| round.seen.figures.p999_ms)?,
            errors,
            error_share: errors as f64 / (errors + done).max(1) as f64,
            cpu_us_per_operation: middle(|round| {
                1e6 * round.usage.cpu_s / round.seen.operations_in_all as f64
            })?,
            generator_us_per_operation: middle(|round| {
                1e6 * round.seen.generator_cpu_s / round.seen.operations_in_all as f64
            })?,
            generator_share: middle(|round| round.seen.generator_cpu_s / round.seen.generator_s)?,
            written_bytes_per_operation: middle(|round| {
                round.usage.written_bytes as f64 / round.seen.operations_in_all as f64
            })?,
            resident_bytes: rounds.last()?.usage.resident_bytes,
            rounds,
        })
    }

    /// Between which ratios the single rounds lay, each to that of the other which was measured beside it.
    pub(super) fn spread_to(&self, other: &Self, of: fn(&Figures) -> f64) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios =
            pairs.filter_map(|(ours, theirs)| ratio(of(&ours.seen.figures), of(&theirs.seen.figures)));
        let Middle { min, max, .. } = Middle::of(ratios)?;
        Some(Spread { min, max })
    }
}

/// There is none to nothing: a round may be so short that none of its calls ends within it.
pub(super) fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    Some(ours / theirs).filter(|ratio| ratio.is_finite())
}

/// What the store's figures are by those of others; `None` where there are no others, or it would tell nothing.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Ratios {
    /// Of operations a second, but not of an open loop, whose rate was ordered and says nothing of who keeps to it.
    pub(super) to_etcd: Option<f64>,
    pub(super) to_etcd_spread: Option<Spread>,
    pub(super) p50_to_etcd: Option<f64>,
    pub(super) p99_to_etcd: Option<f64>,
    pub(super) cpu_to_etcd: Option<f64>,
    /// Of operations a second to those of the server that does nothing.
    pub(super) to_ceiling: Option<f64>,
    pub(super) to_ceiling_spread: Option<Spread>,
    /// Of puts to those that one disk can sync.
    pub(super) to_synced: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) what: String,
    pub(super) clients: u32,
    /// Calls a second of an open loop.
    pub(super) rate: Option<u32>,
    pub(super) keys: u32,
    pub(super) menagerie: Figure,
    pub(super) etcd: Option<Figure>,
    /// The server that does nothing.
    pub(super) ceiling: Option<Figure>,
    #[serde(flatten)]
    pub(super) ratios: Ratios,
}

impl Row {
    /// `synced_per_s` is what the disk can do at most of the same, where that is known.
    pub(super) fn compare(&mut self, synced_per_s: Option<f64>) {
        let ours = &self.menagerie;
        let speed = ours.operations_per_s.median;
        let speed_to = |other: &Figure| ratio(speed, other.operations_per_s.median);
        let spread_to = |other: &Figure| ours.spread_to(other, |figures| figures.operations_per_s);
        let (etcd, ceiling) = (self.etcd.as_ref(), self.ceiling.as_ref());
        let etcd_at_its_own_rate = etcd.filter(|_| self.rate.is_none());
        let to_etcd = |of: fn(&Figure) -> Middle| ratio(of(ours).median, of(etcd?).median);
        self.ratios = Ratios {
            to_etcd: etcd_at_its_own_rate.and_then(speed_to),
            to_etcd_spread: etcd_at_its_own_rate.and_then(spread_to),
            p50_to_etcd: to_etcd(|figure| figure.p50_ms),
            p99_to_etcd: to_etcd(|figure| figure.p99_ms),
            cpu_to_etcd: to_etcd(|figure| figure.cpu_us_per_operation),
            to_ceiling: ceiling.and_then(speed_to),
            to_ceiling_spread: ceiling.and_then(spread_to),
            to_synced: synced_per_s.and_then(|most| ratio(speed, most)),
        };
    }
}

/// Work of the services, which have nothing beside them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServiceRow {
    pub(super) name: String,
    pub(super) what: String,
    pub(super) operations_per_s: Middle,
    pub(super) p50_ms: Middle,
    pub(super) p99_ms: Middle,
    pub(super) errors: u64,
}

/// What this machine can do at most.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ceilings {
    pub(super) cores: usize,
    pub(super) fdatasyncs_per_s: Middle,
    /// Of 64 records of 256 B each.
    pub(super) synced_batches_per_s: Middle,
}

impl Ceilings {
    /// How many puts of 256 B a second one disk can sync: those of a lone client one by one, those of as many clients
    /// as a batch has records all at once. How many puts of others share a sync, nobody can tell beforehand.
    pub(super) fn puts_per_s(&self, clients: u32) -> Option<f64> {
        match clients {
            1 => Some(self.fdatasyncs_per_s.median),
            BATCH => Some(f64::from(BATCH) * self.synced_batches_per_s.median),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) etcd_version: Option<String>,
    /// What could not be measured, and why.
    pub(super) left_out: Vec<String>,
    pub(super) rounds: u32,
    /// Of most cases; the figures of each round tell how long it was.
    pub(super) seconds_each: f64,
    pub(super) ceilings: Ceilings,
    pub(super) rows: Vec<Row>,
    pub(super) services: Vec<ServiceRow>,
    /// Resident memory of one server, by the number of keys: the most that was seen once these were filled in.
    pub(super) memory: Vec<Memory>,
    pub(super) goals: Vec<Goal>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Memory {
    pub(super) keys: u32,
    pub(super) menagerie_bytes: u64,
    pub(super) etcd_bytes: Option<u64>,
    /// Of that, what is mapped from no file; 0 where the kernel does not say.
    pub(super) menagerie_anonymous_bytes: u64,
    pub(super) etcd_anonymous_bytes: Option<u64>,
}

impl Memory {
    /// Among the same keys, at two moments.
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            keys: self.keys,
            menagerie_bytes: self.menagerie_bytes.max(other.menagerie_bytes),
            etcd_bytes: self.etcd_bytes.max(other.etcd_bytes),
            menagerie_anonymous_bytes: self
                .menagerie_anonymous_bytes
                .max(other.menagerie_anonymous_bytes),
            etcd_anonymous_bytes: self.etcd_anonymous_bytes.max(other.etcd_anonymous_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn memory_is_the_most_that_was_seen_of_each_kind() {
        let of = |ours, etcd| Memory {
            keys: 9,
            menagerie_bytes: ours,
            etcd_bytes: etcd,
            menagerie_anonymous_bytes: ours / 2,
            etcd_anonymous_bytes: etcd.map(|bytes| bytes / 2),
        };
        let most = of(10, Some(40)).most(of(20, Some(30)));
        assert_eq!((most.menagerie_bytes, most.menagerie_anonymous_bytes), (20, 10));
        assert_eq!((most.etcd_bytes, most.etcd_anonymous_bytes), (Some(40), Some(20)));
        assert_eq!(of(10, None).most(of(20, None)).etcd_bytes, None);
    }

    #[test]
    fn what_the_generator_took_is_told_by_operation_and_by_time() {
        let mut busy = samples::round(1.0);
        busy.seen.generator_cpu_s = 3.9;
        let figure = Figure::of(vec![samples::round(1.0), busy.clone(), busy]).unwrap();
        // Of 2000 operations in all, in four seconds.
        assert!((figure.generator_us_per_operation.median - 1950.0).abs() < 1e-9);
        assert!((figure.generator_us_per_operation.min - 500.0).abs() < 1e-9);
        assert!((figure.generator_share.median - 0.975).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_spread_of_rounds_side_by_side() {
        let figure = |speeds: [f64; 3]| Figure::of(speeds.map(samples::round).to_vec());
        let mut row = samples::report().rows.remove(0);
        row.menagerie = figure([100.0, 200.0, 150.0]).unwrap();
        row.etcd = figure([50.0, 50.0, 100.0]);
        row.ceiling = None;
        row.compare(None);
        assert!((row.ratios.to_etcd.unwrap() - 3.0).abs() < 1e-9);
        let Spread { min, max } = row.ratios.to_etcd_spread.unwrap();
        assert!(
            (min - 1.5).abs() < 1e-9 && (max - 4.0).abs() < 1e-9,
            "{min} {max}"
        );
        assert_eq!(
            (row.ratios.to_ceiling, row.ratios.to_ceiling_spread),
            (None, None)
        );
    }

    #[test]
    fn latencies_and_processor_time_have_ratios_and_a_rate_that_was_ordered_has_none() {
        let mut slower = samples::round(100.0);
        (slower.seen.figures.p50_ms, slower.seen.figures.p99_ms) = (4.0 * 99.99, 2.0 * 10_000.0);
        slower.usage.cpu_s = 120.0;
        let mut row = samples::report().rows.remove(0);
        row.menagerie = Figure::of(vec![samples::round(200.0)]).unwrap();
        row.etcd = Figure::of(vec![slower]);
        let told = |row: &Row| {
            let ratios = row.ratios;
            let others = [ratios.p50_to_etcd, ratios.p99_to_etcd, ratios.cpu_to_etcd];
            (
                ratios.to_etcd,
                ratios.to_etcd_spread.is_some(),
                others.map(Option::unwrap),
            )
        };
        row.compare(None);
        assert_eq!(told(&row), (Some(2.0), true, [0.25, 0.5, 0.25]));
        row.rate = Some(1000);
        row.compare(None);
        assert_eq!(told(&row), (None, false, [0.25, 0.5, 0.25]));
        row.etcd = None;
        row.compare(None);
        assert_eq!(row.ratios.p50_to_etcd, None);
    }

    #[test]
    fn puts_are_compared_to_what_a_disk_can_sync_of_as_many_at_once() {
        // Twenty of either a second.
        let ceilings = samples::report().ceilings;
        assert_eq!(ceilings.puts_per_s(1), Some(20.0));
        assert_eq!(ceilings.puts_per_s(64), Some(1280.0));
        assert_eq!((ceilings.puts_per_s(16), ceilings.puts_per_s(256)), (None, None));
        let mut row = samples::report().rows.remove(0);
        row.menagerie = Figure::of(vec![samples::round(320.0)]).unwrap();
        row.compare(ceilings.puts_per_s(64));
        assert_eq!(row.ratios.to_synced, Some(0.25));
        row.compare(None);
        assert_eq!(row.ratios.to_synced, None);
    }

    #[test]
    fn there_is_no_ratio_to_a_side_of_which_nothing_ended_in_time() {
        let figure = |speeds: [f64; 3]| Figure::of(speeds.map(samples::round).to_vec());
        let mut row = samples::report().rows.remove(0);
        row.menagerie = figure([100.0, 200.0, 150.0]).unwrap();
        row.etcd = figure([0.0, 0.0, 100.0]);
        row.compare(None);
        assert_eq!(row.ratios.to_etcd, None);
        let Spread { min, max } = row.ratios.to_etcd_spread.unwrap();
        assert_eq!((min, max), (1.5, 1.5));
    }
}
