//! Applying against the database, compared with a model in memory.
//!
//! Random commands run through both, several to a batch; answers, counters, hash, events and every readable
//! past must agree, before compaction has been carried out and after, and once more after a restart.

mod generate;
mod model;
mod ranges;
mod singles;
mod walks;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::host::{Machine, MachineSettings};
use super::small::entry;
use super::state::{Event, record_hash};
use crate::command::{Action, Record, Reply};
use crate::metrics::NodeMetrics;
use crate::storage::machine_db::{EVENTS, VERSIONS};
use crate::storage::walk::{Direction, Span, Walk, Want};
use generate::action;
use model::{Model, Rows};

struct Real {
    machine: Arc<Machine>,
    index: u64,
    folder: tempfile::TempDir,
}

const SETTINGS: MachineSettings = MachineSettings {
    memtable_bytes: 1 << 20,
    cache_bytes: 1 << 20,
    ring_bytes: 64 << 20,
    // Room for a few only, so that most are forgotten in between.
    records_bytes: 2 << 10,
    heads_bytes: 1 << 10,
};

fn open(folder: &std::path::Path) -> Arc<Machine> {
    Machine::open(folder, SETTINGS, Arc::new(NodeMetrics::new())).expect("the database opens")
}

impl Real {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            machine: open(folder.path()),
            index: 0,
            folder,
        }
    }

    /// One batch: each inner list is a log entry of its own.
    fn apply(&mut self, entries: &[Vec<Action>]) -> Vec<Reply> {
        let items = entries.iter().map(|actions| {
            self.index += 1;
            entry(self.index, 1000 * self.index, actions.clone())
        });
        let items = items.collect();
        self.machine
            .apply(items)
            .expect("the database takes the batch")
            .into_iter()
            .flatten()
            .collect()
    }

    /// By both ways there are.
    fn past(&self, revision: u64, span: &Span) -> Vec<(Bytes, Record)> {
        let generation = self.machine.generation();
        let db = generation.db();
        let rows = gathered(Want::Values, |want, visit| {
            db.visit_past(walk(span, want), revision, visit);
        });
        let the_long_way = gathered(Want::Values, |want, visit| {
            db.visit_versions(walk(span, want), revision, visit);
        });
        assert_eq!(rows, the_long_way, "{span:?} at revision {revision}");
        let mut count = 0;
        db.visit_past(walk(span, Want::Count), revision, &mut |_, record| {
            assert_eq!(record, None, "only a count was wanted");
            count += 1;
            ControlFlow::Continue(Want::Count)
        });
        assert_eq!(count, rows.len(), "{span:?} at revision {revision}");
        rows
    }
}

type Visit<'v> = &'v mut dyn FnMut(&[u8], Option<Record>) -> ControlFlow<(), Want>;

/// One that somebody waits for.
fn walk(span: &Span, want: Want) -> Walk<'_> {
    Walk {
        span,
        want,
        is_awaited: &|| true,
    }
}

fn gathered<T>(want: Want, walk: impl FnOnce(Want, Visit<'_>) -> T) -> Vec<(Bytes, Record)> {
    let mut rows = Vec::new();
    walk(want, &mut |key, record| {
        rows.push((Bytes::copy_from_slice(key), record.expect("a record was wanted")));
        ControlFlow::Continue(want)
    });
    rows
}

fn check_present(real: &Real, model: &Model) {
    let state = real.machine.state();
    assert_eq!(
        (state.revision, state.compacted),
        (model.revision(), model.compacted)
    );
    assert_eq!(state.keys, model.present().len() as u64);
    let hash = model.present().iter().fold(0_u128, |sum, (key, record)| {
        sum.wrapping_add(record_hash(key, record))
    });
    assert_eq!(
        state.hash, hash,
        "kept up with each write, it is what one would compute anew"
    );
    let all = Span {
        from: Vec::new(),
        to: None,
        direction: Direction::Ascending,
    };
    let generation = real.machine.generation();
    let mut revision = 0;
    let rows = gathered(Want::Values, |want, visit| {
        revision = generation.db().visit_present(walk(&all, want), visit);
    });
    let rows: Rows = rows.into_iter().collect();
    assert_eq!((revision, &rows), (model.revision(), model.present()));
    let heads = gathered(Want::Heads, |want, visit| {
        generation.db().visit_present(walk(&all, want), visit)
    });
    let without_values = model.present().iter().map(|(key, record)| {
        let value = Bytes::new();
        (
            key.clone(),
            Record {
                value,
                ..record.clone()
            },
        )
    });
    assert!(heads.into_iter().eq(without_values), "heads alone");
    for key in model.events.iter().map(|event| &event.key) {
        // The second time it may be at hand.
        for _ in 0..2 {
            let found = generation.db().record_now(key);
            assert_eq!(found.as_ref(), model.present().get(key), "{key:?} by itself");
        }
    }
    let ring = real
        .machine
        .hub
        .read(1, model.revision(), usize::MAX)
        .1
        .expect("the ring is large enough");
    let events: Vec<Event> = ring.iter().flat_map(|change| change.events.clone()).collect();
    assert_eq!(events, model.events, "watchers see each change once and in order");
}

/// Everything, from a key on, up to a key, and between two.
fn part_and_whole(bounds: &[Vec<u8>]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut spans = vec![(Vec::new(), None)];
    for bound in bounds {
        spans.push((bound.clone(), None));
        spans.push((bounds[0].clone(), Some(bound.clone())));
    }
    spans
}

/// Removes what the model gave up; what is stored then does not depend on who wrote the events that tell of it.
fn collect(real: &Real, older: &Real, model: &Model) {
    older.machine.generation().db().make_older();
    for machine in [&real.machine, &older.machine] {
        while machine
            .generation()
            .db()
            .collect_step(model.compacted)
            .expect("the database collects")
        {}
    }
    let generations = [real, older].map(|real| real.machine.generation());
    let [stored, stored_older] = generations
        .each_ref()
        .map(|generation| generation.db().rows(VERSIONS));
    assert_eq!(stored, stored_older, "versions");
    let [events, events_older] = generations
        .each_ref()
        .map(|generation| generation.db().rows(EVENTS).len());
    assert_eq!(events, events_older, "rows of events");
}

fn check_history(real: &Real, model: &Model) {
    let generation = real.machine.generation();
    for revision in model.compacted..=model.revision() {
        let rows = &model.states[usize::try_from(revision).expect("few revisions")];
        let expected: Vec<(Bytes, Record)> = rows
            .iter()
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        let mut bounds: Vec<Vec<u8>> = expected.iter().map(|(key, _)| key.to_vec()).collect();
        bounds.truncate(3);
        for (from, to) in part_and_whole(&bounds) {
            let within = |key: &Bytes| *key >= from && to.as_ref().is_none_or(|to| key < to);
            let wanted: Vec<_> = expected.iter().filter(|(key, _)| within(key)).cloned().collect();
            let mut span = Span {
                from: from.clone(),
                to: to.clone(),
                direction: Direction::Ascending,
            };
            assert_eq!(real.past(revision, &span), wanted, "at revision {revision}");
            span.direction = Direction::Descending;
            let mut backwards = real.past(revision, &span);
            backwards.reverse();
            assert_eq!(backwards, wanted, "backwards at revision {revision}");
        }
        for key in model.events.iter().map(|event| &event.key) {
            assert_eq!(
                generation.db().record_at(key, revision).as_ref(),
                rows.get(key),
                "{key:?} at {revision}"
            );
        }
    }
    let later = |event: &&Event| event.record.modified > model.compacted;
    let expected: Vec<Event> = model.events.iter().filter(later).cloned().collect();
    assert_eq!(generation.db().events_from(model.compacted + 1), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_database_agrees_with_the_model(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(action(), 1..4), 1..4), 1..8)
    ) {
        let (mut real, mut older, mut model) = (Real::new(), Real::new(), Model::new());
        for entries in &batches {
            let expected: Vec<Reply> = entries.iter().flatten().map(|action| model.apply(action)).collect();
            prop_assert_eq!(&real.apply(entries), &expected);
            prop_assert_eq!(older.apply(entries), expected);
            check_present(&real, &model);
        }
        check_history(&real, &model);
        collect(&real, &older, &model);
        check_present(&real, &model);
        check_history(&real, &model);
        // What a restart finds is the same.
        real.machine.generation().db().flush().expect("the database is flushed");
        let Real { machine, folder, index } = real;
        drop(machine);
        let real = Real { machine: open(folder.path()), index, folder };
        prop_assert_eq!(real.machine.state().revision, model.revision());
        check_history(&real, &model);
    }
}
