//! Gets and deletes by prefix over a base that counts what is read of it.
//!
//! Invariant: what they find is what one would find who gathered everything first, and yet no value is read that is
//! not answered.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::command::{Action, Actor, Answer, Branch, Command, Op, OpResult, Record, Refusal, Txn};
use crate::machine::apply::apply;
use crate::machine::base::Base;
use crate::machine::draft::Draft;
use crate::machine::overlay::{Changes, visit_under};
use crate::machine::state::{Head, Kept, KeptId, Lease, State};
use crate::machine::txn::ANSWER_BYTES_MAX;

#[derive(Default)]
pub(super) struct Counting {
    rows: BTreeMap<Bytes, Record>,
    pub(super) heads: Cell<usize>,
    passed: Cell<usize>,
    values: Cell<usize>,
}

impl Base for Counting {
    fn head(&self, key: &[u8]) -> Option<Head> {
        self.heads.set(self.heads.get() + 1);
        self.rows.get(key).map(|record| Head::of(key, record))
    }

    fn value(&self, key: &[u8], _modified: u64) -> Bytes {
        self.values.set(self.values.get() + 1);
        self.rows[key].value.clone()
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], Head) -> ControlFlow<()>) {
        for (key, record) in self.rows.range(Bytes::copy_from_slice(from)..) {
            if to.is_some_and(|to| key.as_ref() >= to) {
                break;
            }
            self.passed.set(self.passed.get() + 1);
            if visit(key, Head::of(key, record)).is_break() {
                break;
            }
        }
    }

    fn lease(&self, _id: u64) -> Option<Lease> {
        None
    }

    fn lease_keys(&self, _id: u64) -> Vec<Bytes> {
        Vec::new()
    }

    fn kept(&self, _id: &KeptId) -> Option<Kept> {
        None
    }

    fn kept_between(&self, _from_ms: u64, _to_ms: u64, _limit: usize) -> Vec<((u64, KeptId), u64)> {
        Vec::new()
    }

    fn member_disk(&self, _id: u64) -> Option<String> {
        None
    }
}

fn record(value: impl Into<Bytes>) -> Record {
    Record {
        created: 1,
        modified: 1,
        version: 1,
        lease: 0,
        value: value.into(),
    }
}

/// So many keys of ten bytes.
pub(super) fn base_of(keys: usize, value: &Bytes) -> Counting {
    let rows = (0..keys).map(|n| (Bytes::from(format!("k{n:09}")), record(value.clone())));
    Counting {
        rows: rows.collect(),
        ..Counting::default()
    }
}

fn run(base: &Counting, then: Vec<Op>) -> Answer {
    let state = State {
        revision: 1,
        keys: base.rows.len() as u64,
        ..State::default()
    };
    let mut draft = Draft::new(base, state, Arc::default());
    let action = Action::Txn(Txn {
        then,
        ..Txn::default()
    });
    let command = Command {
        actor: Actor::System,
        action,
        once: None,
    };
    let mut answers = Vec::new();
    apply(&mut draft, 1, &[command], |reply| answers.push(reply.answer));
    answers.remove(0)
}

fn get(limit: u32) -> Op {
    let prefix = Bytes::new();
    Op::GetPrefix { prefix, limit }
}

fn results(answer: Answer) -> Vec<OpResult> {
    match answer {
        Answer::Txn {
            branch: Branch::Then,
            results,
            ..
        } => results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_get_with_a_limit_reads_no_more_values_than_it_answers() {
    let base = base_of(20_000, &Bytes::from_static(b"v"));
    let first = Bytes::from_static(b"a");
    let then = vec![
        Op::Put {
            key: first.clone(),
            value: Bytes::new(),
            lease: 0,
        },
        get(1),
        get(3),
    ];
    let results = results(run(&base, then));
    let OpResult::Got { rows, count } = &results[1] else {
        panic!("{results:?}")
    };
    assert_eq!((&rows[0].0, rows.len(), *count), (&first, 1, 20_001));
    assert!(matches!(&results[2], OpResult::Got { rows, count: 20_001 } if rows.len() == 3));
    assert_eq!(base.values.get(), 2, "what was written a moment ago is not read");
}

#[test]
fn a_delete_reads_no_values() {
    let base = base_of(1000, &Bytes::from_static(b"v"));
    let prefix = Bytes::from_static(b"k");
    let deleted = results(run(&base, vec![Op::DeletePrefix { prefix }, get(0)]));
    assert_eq!(deleted[0], OpResult::Deleted { count: 1000 });
    assert!(matches!(&deleted[1], OpResult::Got { rows, count: 0 } if rows.is_empty()));
    assert_eq!(base.values.get(), 0);
}

#[test]
fn an_answer_that_is_too_large_is_given_up_at_once() {
    const FITTING: u32 = 64;
    const ROW_BYTES: usize = ANSWER_BYTES_MAX / FITTING as usize;
    // A row counts 64 bytes and its key beside the value.
    let base = base_of(10_000, &Bytes::from(vec![b'v'; ROW_BYTES - 64 - 10]));
    let one_too_many = FITTING as usize + 1;
    for (ops, passed) in [
        (vec![get(0)], one_too_many),
        (vec![get(FITTING + 1)], one_too_many),
        // The first one counts them all; the second begins anew.
        (vec![get(FITTING), get(1)], 10_000 + 1),
    ] {
        base.passed.set(0);
        base.values.set(0);
        assert_eq!(run(&base, ops), Answer::Refused(Refusal::AnswerTooLarge));
        assert_eq!((base.values.get(), base.passed.get()), (one_too_many, passed));
    }
    let fits = results(run(&base, vec![get(FITTING)]));
    assert!(matches!(&fits[0], OpResult::Got { rows, count: 10_000 } if rows.len() == FITTING as usize));
}

/// Gathers everything and then looks.
fn gathered(base: &Counting, layers: [&Changes; 2], prefix: &[u8]) -> Vec<(Bytes, Record)> {
    let mut rows = base.rows.clone();
    for (key, change) in layers.into_iter().flatten() {
        match change {
            Some(record) => rows.insert(key.clone(), record.clone()),
            None => rows.remove(key),
        };
    }
    rows.retain(|key, _| key.starts_with(prefix));
    rows.into_iter().collect()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    // Few different ones, with both ends of what a byte may be.
    let byte = prop::sample::select(vec![0_u8, b'a', b'b', 0xff]);
    prop::collection::vec(byte, 0..4).prop_map(Bytes::from)
}

fn changes() -> impl Strategy<Value = Changes> {
    let change = prop::option::of(bytes().prop_map(record));
    prop::collection::btree_map(bytes(), change, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_are_walked_as_if_they_were_one(
        rows in prop::collection::btree_map(bytes(), bytes().prop_map(record), 0..12),
        lower in changes(),
        upper in changes(),
        prefix in bytes(),
        limit in 0_usize..20,
    ) {
        let base = Counting { rows, ..Counting::default() };
        let expected = gathered(&base, [&lower, &upper], &prefix);
        let mut found = Vec::new();
        visit_under(&base, [&lower, &upper], &prefix, &mut |key, record| {
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            found.push((Bytes::copy_from_slice(key), record()));
            ControlFlow::Continue(())
        });
        prop_assert_eq!(found.as_slice(), &expected[..limit.min(expected.len())]);
    }
}
