//! Applying against the database, compared with maps that are obviously right.
//!
//! The model keeps every past state whole and knows no batches, drafts or tables. Random commands run
//! through both, several to a batch; answers, counters, hash, events and every readable past must agree,
//! before compaction has been carried out and after.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::machine::{Content, Item, Machine, MachineSettings};
use super::state::{Event, record_hash};
use super::txn::parse_int;
use crate::command::{
    Action, Actor, Answer, Branch, Command, Condition, Expect, Op, OpResult, Order, Proposal, Record,
    Refusal, Reply, Test, Txn, encode_commands,
};
use crate::metrics::NodeMetrics;
use crate::raft::entry::log_id;
use crate::storage::history::{Direction, Span};

type Rows = BTreeMap<Bytes, Record>;

#[derive(Default)]
struct Model {
    /// The state at each revision; the last one is the present.
    states: Vec<Rows>,
    events: Vec<Event>,
    leases: BTreeMap<u64, u64>,
    compacted: u64,
}

/// What one branch of a transaction does, key by key. `None` = deleted.
type Written = BTreeMap<Bytes, Option<Record>>;

impl Model {
    fn new() -> Self {
        Self {
            states: vec![Rows::new()],
            ..Self::default()
        }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn present(&self) -> &Rows {
        self.states.last().expect("revision 0 is always there")
    }

    fn commit(&mut self, written: Written) {
        let mut next = self.present().clone();
        let revision = self.revision() + 1;
        let mut changed = false;
        for (key, record) in written {
            if record.is_none() && !next.contains_key(&key) {
                continue;
            }
            changed = true;
            let version = record.clone().unwrap_or_else(|| Record::tombstone(revision));
            self.events.push(Event {
                key: key.clone(),
                record: version,
            });
            match record {
                Some(record) => next.insert(key, record),
                None => next.remove(&key),
            };
        }
        if changed {
            self.states.push(next);
        }
    }

    fn seen(&self, written: &Written, key: &Bytes) -> Option<Record> {
        written
            .get(key)
            .cloned()
            .unwrap_or_else(|| self.present().get(key).cloned())
    }

    fn write(&self, written: &mut Written, key: &Bytes, value: &Bytes, lease: u64) -> u64 {
        let revision = self.revision() + 1;
        let (created, version) = match (written.get(key), self.present().get(key)) {
            (Some(Some(own)), _) => (own.created, own.version),
            (None, Some(old)) => (old.created, old.version + 1),
            _ => (revision, 1),
        };
        let record = Record {
            created,
            modified: revision,
            version,
            lease,
            value: value.clone(),
        };
        written.insert(key.clone(), Some(record));
        version
    }

    fn under(&self, written: &Written, prefix: &[u8]) -> Vec<(Bytes, Record)> {
        let keys: std::collections::BTreeSet<&Bytes> = self.present().keys().chain(written.keys()).collect();
        let keys = keys.into_iter().filter(|key| key.starts_with(prefix));
        keys.filter_map(|key| Some((key.clone(), self.seen(written, key)?)))
            .collect()
    }

    fn delete_all(&self, written: &mut Written, rows: &[(Bytes, Record)]) -> u64 {
        written.extend(rows.iter().map(|(key, _)| (key.clone(), None)));
        rows.len() as u64
    }

    /// The results of a branch, or the op that failed.
    fn branch(&self, ops: &[Op]) -> Result<(Vec<OpResult>, Written), u32> {
        let mut written = Written::new();
        let mut results = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            let result = match op {
                Op::Put { key, value, lease } => OpResult::Put {
                    version: self.write(&mut written, key, value, *lease),
                },
                Op::Delete { key } => {
                    let there = self.seen(&written, key).is_some();
                    written.extend(there.then(|| (key.clone(), None)));
                    OpResult::Deleted {
                        count: u64::from(there),
                    }
                }
                Op::DeletePrefix { prefix } => {
                    let rows = self.under(&written, prefix);
                    OpResult::Deleted {
                        count: self.delete_all(&mut written, &rows),
                    }
                }
                Op::Get { key } => {
                    let rows: Vec<_> = self
                        .seen(&written, key)
                        .map(|record| (key.clone(), record))
                        .into_iter()
                        .collect();
                    OpResult::Got {
                        count: rows.len() as u64,
                        rows,
                    }
                }
                Op::GetPrefix { prefix, limit } => {
                    let mut rows = self.under(&written, prefix);
                    let count = rows.len() as u64;
                    rows.truncate(if *limit == 0 { rows.len() } else { *limit as usize });
                    OpResult::Got { rows, count }
                }
                Op::Add { key, by, min, max } => {
                    let value = self.added(&written, key, *by, *min, *max).ok_or(n as u32)?;
                    let lease = self.seen(&written, key).map_or(0, |record| record.lease);
                    self.write(&mut written, key, &Bytes::from(value.to_string()), lease);
                    OpResult::Added { value }
                }
            };
            results.push(result);
        }
        Ok((results, written))
    }

    fn added(
        &self,
        written: &Written,
        key: &Bytes,
        by: i64,
        min: Option<i64>,
        max: Option<i64>,
    ) -> Option<i64> {
        let old = match self.seen(written, key) {
            Some(record) => parse_int(&record.value)?,
            None => 0,
        };
        let sum = i128::from(old) + i128::from(by);
        let least = i128::from(min.unwrap_or(i64::MIN));
        let most = i128::from(max.unwrap_or(i64::MAX));
        (least..=most)
            .contains(&sum)
            .then(|| i64::try_from(sum).expect("it is within the bounds"))
    }

    fn holds(&self, condition: &Condition) -> bool {
        let record = self.present().get(&condition.key);
        let is = |ordering: std::cmp::Ordering| match condition.order {
            Order::Equal => ordering.is_eq(),
            Order::NotEqual => ordering.is_ne(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        };
        let number = |field: fn(&Record) -> u64, operand: &u64| is(record.map_or(0, field).cmp(operand));
        let incomparable = condition.order == Order::NotEqual;
        match &condition.test {
            Test::Version(operand) => number(|record| record.version, operand),
            Test::Created(operand) => number(|record| record.created, operand),
            Test::Modified(operand) => number(|record| record.modified, operand),
            Test::Lease(operand) => number(|record| record.lease, operand),
            Test::Value(operand) => record.map_or(incomparable, |record| is(record.value.cmp(operand))),
            Test::Int(operand) => match record.map_or(Some(0), |record| parse_int(&record.value)) {
                Some(value) => is(value.cmp(operand)),
                None => incomparable,
            },
        }
    }

    fn txn(&mut self, txn: &Txn) -> Answer {
        let unknown = |ops: &[Op]| {
            let mut leases = ops.iter().filter_map(|op| {
                if let Op::Put { lease, .. } = op {
                    Some(*lease)
                } else {
                    None
                }
            });
            leases.any(|lease| lease != 0 && !self.leases.contains_key(&lease))
        };
        assert!(
            ![&txn.then, &txn.otherwise].into_iter().any(|ops| unknown(ops)),
            "such are not generated"
        );
        let holds = txn.conditions.iter().all(|condition| self.holds(condition));
        let (first, ops) = if holds {
            (Branch::Then, &txn.then)
        } else {
            (Branch::Else, &txn.otherwise)
        };
        let (branch, failed_op, outcome) = match self.branch(ops) {
            Ok(outcome) => (first, None, Some(outcome)),
            Err(failed) => {
                let (branch, ops) = match (&txn.failed, holds) {
                    (Some(ops), _) => (Branch::Failed, Some(ops)),
                    (None, true) => (Branch::Else, Some(&txn.otherwise)),
                    (None, false) => (Branch::Nothing, None),
                };
                match ops.map(|ops| self.branch(ops)) {
                    Some(Ok(outcome)) => (branch, Some(failed), Some(outcome)),
                    _ => (Branch::Nothing, Some(failed), None),
                }
            }
        };
        let (results, written) = outcome.unwrap_or_default();
        self.commit(written);
        Answer::Txn {
            branch,
            failed_op,
            results,
        }
    }

    fn expected(&self, key: &Bytes, expect: Expect) -> Result<(), Answer> {
        let modified = self.present().get(key).map_or(0, |record| record.modified);
        let met = match expect {
            Expect::Any => true,
            Expect::Absent => modified == 0,
            Expect::Modified(revision) => modified == revision && modified != 0,
        };
        if met {
            Ok(())
        } else {
            Err(Answer::Refused(Refusal::Precondition { modified }))
        }
    }

    fn act(&mut self, action: &Action) -> Result<Answer, Answer> {
        Ok(match action {
            Action::Put {
                key,
                value,
                lease,
                expect,
            } => {
                self.expected(key, *expect)?;
                if *lease != 0 && !self.leases.contains_key(lease) {
                    return Err(Answer::Refused(Refusal::LeaseNotFound { id: *lease }));
                }
                let mut written = Written::new();
                let version = self.write(&mut written, key, value, *lease);
                self.commit(written);
                Answer::Put {
                    key: key.clone(),
                    version,
                    created: version == 1,
                }
            }
            Action::Delete { key, expect } => {
                self.expected(key, *expect)?;
                let count = u64::from(self.present().contains_key(key));
                self.commit(Written::from([(key.clone(), None)]));
                Answer::Deleted { count }
            }
            Action::DeletePrefix { prefix } => self.delete_where(|key, _| key.starts_with(prefix)),
            Action::Txn(txn) => self.txn(txn),
            Action::LeaseGrant { id, ttl_ms, .. } => {
                let id = (*id..)
                    .find(|id| !self.leases.contains_key(id))
                    .expect("few are taken");
                self.leases.insert(id, *ttl_ms);
                Answer::Lease { id, ttl_ms: *ttl_ms }
            }
            Action::LeaseRevoke { id } => {
                if self.leases.remove(id).is_none() {
                    return Err(Answer::Refused(Refusal::LeaseNotFound { id: *id }));
                }
                self.delete_where(|_, record| record.lease == *id)
            }
            Action::Compact { revision } => {
                if *revision > self.revision() {
                    return Err(Answer::Refused(Refusal::FutureRevision {
                        present: self.revision(),
                    }));
                }
                self.compacted = self.compacted.max(*revision);
                Answer::Compacted {
                    revision: self.compacted,
                }
            }
            other => unreachable!("not generated: {other:?}"),
        })
    }

    fn delete_where(&mut self, chosen: impl Fn(&Bytes, &Record) -> bool) -> Answer {
        let gone = self.present().iter().filter(|(key, record)| chosen(key, record));
        let written: Written = gone.map(|(key, _)| (key.clone(), None)).collect();
        let count = written.len() as u64;
        self.commit(written);
        Answer::Deleted { count }
    }

    fn apply(&mut self, action: &Action) -> Reply {
        let answer = self.act(action).unwrap_or_else(|refused| refused);
        Reply {
            revision: self.revision(),
            replayed: false,
            answer,
        }
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/", "a/1", "a/2", "a/2\0", "a\0", "ab", "b", "é"])
        .prop_map(Bytes::from_static_str)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec![
        "",
        "0",
        "7",
        "-3",
        "x",
        "+5",
        "9223372036854775807",
        "long value of a key",
    ])
    .prop_map(Bytes::from_static_str)
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes())
    }
}

fn prefix() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "a", "a/", "b", "zz"]).prop_map(Bytes::from_static_str)
}

/// Revisions that the store will have passed when they are used, and some that it will not.
fn revision() -> impl Strategy<Value = u64> {
    0_u64..24
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![4 => Just(Expect::Any), 1 => Just(Expect::Absent), 2 => revision().prop_map(Expect::Modified)]
}

fn op() -> impl Strategy<Value = Op> {
    let bound = || prop::option::of(-5_i64..9);
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value, lease: 0 }),
        1 => key().prop_map(|key| Op::Delete { key }),
        1 => prefix().prop_map(|prefix| Op::DeletePrefix { prefix }),
        1 => key().prop_map(|key| Op::Get { key }),
        1 => (prefix(), 0_u32..4).prop_map(|(prefix, limit)| Op::GetPrefix { prefix, limit }),
        3 => (key(), -4_i64..5, bound(), bound()).prop_map(|(key, by, min, max)| Op::Add { key, by, min, max }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    use Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let order = prop::sample::select(vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual]);
    let test = prop_oneof![
        (0_u64..4).prop_map(Test::Version),
        revision().prop_map(Test::Created),
        revision().prop_map(Test::Modified),
        (0_u64..3).prop_map(Test::Lease),
        (-4_i64..8).prop_map(Test::Int),
        value().prop_map(Test::Value),
    ];
    (key(), test, order).prop_map(|(key, test, order)| Condition { key, test, order })
}

fn txn() -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op(), 0..5);
    (
        prop::collection::vec(condition(), 0..3),
        ops(),
        ops(),
        prop::option::of(ops()),
    )
        .prop_map(|(conditions, then, otherwise, failed)| Txn {
            conditions,
            then,
            otherwise,
            failed,
        })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (key(), value(), prop_oneof![3 => Just(0), 2 => 1_u64..4], expect())
            .prop_map(|(key, value, lease, expect)| Action::Put { key, value, lease, expect }),
        2 => (key(), expect()).prop_map(|(key, expect)| Action::Delete { key, expect }),
        1 => prefix().prop_map(|prefix| Action::DeletePrefix { prefix }),
        6 => txn().prop_map(Action::Txn),
        2 => (1_u64..3).prop_map(|id| Action::LeaseGrant { id, ttl_ms: 60_000, pin: None }),
        1 => (1_u64..4).prop_map(|id| Action::LeaseRevoke { id }),
        1 => revision().prop_map(|revision| Action::Compact { revision }),
    ]
}

struct Real {
    machine: Arc<Machine>,
    index: u64,
    folder: tempfile::TempDir,
}

const SETTINGS: MachineSettings = MachineSettings {
    memtable_bytes: 1 << 20,
    cache_bytes: 1 << 20,
    ring_bytes: 64 << 20,
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
            let command = |action: &Action| Command {
                actor: Actor::System,
                action: action.clone(),
                once: None,
            };
            let commands: Vec<Command> = actions.iter().map(command).collect();
            self.index += 1;
            let id = serde_json::to_vec(&log_id(1, 1, self.index)).expect("a log id is plain data");
            let proposal = Proposal::new(1000 * self.index, &encode_commands(&commands));
            Item {
                index: self.index,
                id,
                content: Content::Proposal(proposal),
            }
        });
        let items = items.collect();
        self.machine
            .apply(items)
            .expect("the database takes the batch")
            .into_iter()
            .flatten()
            .collect()
    }

    fn past(&self, revision: u64, direction: Direction) -> Vec<(Bytes, Record)> {
        let mut rows = Vec::new();
        let all = Span {
            from: Vec::new(),
            to: None,
            direction,
        };
        self.machine
            .generation()
            .db()
            .visit_past(&all, revision, &mut |key, record| {
                rows.push((key, record));
                ControlFlow::Continue(())
            });
        rows
    }
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
    let mut rows = Rows::new();
    let all = Span {
        from: Vec::new(),
        to: None,
        direction: Direction::Ascending,
    };
    let revision = real
        .machine
        .generation()
        .db()
        .visit_present(&all, &mut |key, record| {
            rows.insert(key, record);
            ControlFlow::Continue(())
        });
    assert_eq!((revision, &rows), (model.revision(), model.present()));
    let ring = real
        .machine
        .hub
        .read(1, model.revision(), usize::MAX)
        .expect("the ring is large enough");
    let events: Vec<Event> = ring.iter().flat_map(|change| change.events.clone()).collect();
    assert_eq!(events, model.events, "watchers see each change once and in order");
}

fn check_history(real: &Real, model: &Model) {
    let generation = real.machine.generation();
    for revision in model.compacted..=model.revision() {
        let rows = &model.states[usize::try_from(revision).expect("few revisions")];
        let expected: Vec<(Bytes, Record)> = rows
            .iter()
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect();
        assert_eq!(
            real.past(revision, Direction::Ascending),
            expected,
            "at revision {revision}"
        );
        let mut backwards = real.past(revision, Direction::Descending);
        backwards.reverse();
        assert_eq!(backwards, expected, "backwards at revision {revision}");
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
    assert_eq!(
        generation
            .db()
            .events_from(model.compacted + 1, u64::MAX, usize::MAX),
        expected
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_database_agrees_with_the_model(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(action(), 1..4), 1..4), 1..8)
    ) {
        let (mut real, mut model) = (Real::new(), Model::new());
        for entries in &batches {
            let expected: Vec<Reply> = entries.iter().flatten().map(|action| model.apply(action)).collect();
            prop_assert_eq!(real.apply(entries), expected);
            check_present(&real, &model);
        }
        check_history(&real, &model);
        while real.machine.generation().db().collect_step(model.compacted).expect("the database collects") {}
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
