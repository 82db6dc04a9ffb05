//! A store that is obviously right: every past state is kept whole.
//!
//! It knows no batches, drafts or tables, and it is slow.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::{
    Action, Answer, Branch, Condition, Expect, Op, OpResult, Order, Record, Refusal, Reply, Test, Txn,
};
use crate::machine::state::Event;
use crate::machine::txn::parse_int;

pub(super) type Rows = BTreeMap<Bytes, Record>;

#[derive(Default)]
pub(super) struct Model {
    /// The state at each revision; the last one is the present.
    pub(super) states: Vec<Rows>,
    pub(super) events: Vec<Event>,
    leases: BTreeMap<u64, u64>,
    pub(super) compacted: u64,
}

/// What one branch of a transaction does, key by key. `None` = deleted.
type Written = BTreeMap<Bytes, Option<Record>>;

impl Model {
    pub(super) fn new() -> Self {
        Self {
            states: vec![Rows::new()],
            ..Self::default()
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    pub(super) fn present(&self) -> &Rows {
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
                    let count = rows.len() as u64;
                    written.extend(rows.into_iter().map(|(key, _)| (key, None)));
                    OpResult::Deleted { count }
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
                    let value = self.added(&written, key, *by, *min, *max).ok_or(number(n))?;
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
                let last = self.leases.len() as u64 + *id;
                let free = (*id..=last).find(|id| !self.leases.contains_key(id));
                let id = free.expect("there are more numbers than leases");
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

    pub(super) fn apply(&mut self, action: &Action) -> Reply {
        let answer = self.act(action).unwrap_or_else(|refused| refused);
        Reply {
            revision: self.revision(),
            replayed: false,
            answer,
            mirrors: crate::command::MirrorsWere::None,
        }
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("branches are short")
}
