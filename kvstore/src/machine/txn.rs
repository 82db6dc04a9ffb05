//! One transaction against a draft: conditions, ops, and the branch that catches a failure.
//!
//! Pure. A branch works on writes of its own, so that a failing op leaves no trace. Invariant: however many keys
//! there are, no more rows are held than may be answered.

use std::ops::ControlFlow;

use bytes::Bytes;
use service::planted::{Bug, is_planted};

use super::base::Base;
use super::draft::Draft;
use super::overlay::Changes;
use super::state::Head;
use crate::command::{Answer, Branch, Condition, Op, OpResult, Order, Record, Refusal, Test, Txn};

/// Bytes of rows that one transaction may answer.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Rows that one `get` by prefix may answer. It stays as it is, or members of different versions would differ.
pub const ROWS_MAX: usize = 10_000;

/// Why a branch stopped.
enum Stop {
    /// An `add` left its bounds or met no integer: the failure branch takes over.
    Failed,
    /// The transaction as a whole cannot be answered.
    Refused(Refusal),
}

/// Writes under way inside one transaction. `None` = deleted.
pub struct Writes<'d, 'b, B> {
    draft: &'d Draft<'b, B>,
    revision: u64,
    pub changes: Changes,
    answer_bytes: usize,
}

impl<'d, 'b, B: Base> Writes<'d, 'b, B> {
    pub fn new(draft: &'d Draft<'b, B>) -> Self {
        Self {
            draft,
            revision: draft.state.revision + 1,
            changes: Changes::new(),
            answer_bytes: 0,
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Record> {
        match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => self.draft.record(key),
        }
    }

    /// Answers the key's new version. A key written twice gets one version.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: u64) -> u64 {
        let (created, version) = match self.changes.get(&key) {
            Some(Some(written)) => (written.created, written.version),
            Some(None) => (self.revision, 1),
            None => self
                .draft
                .head(&key)
                .map_or((self.revision, 1), |old| (old.created, old.version + 1)),
        };
        self.changes.insert(
            key,
            Some(Record {
                created,
                modified: self.revision,
                version,
                lease,
                value,
            }),
        );
        version
    }

    pub fn delete(&mut self, key: &Bytes) -> bool {
        let present = match self.changes.get(key) {
            Some(changed) => changed.is_some(),
            None => self.draft.head(key).is_some(),
        };
        if present {
            self.changes.insert(key.clone(), None);
        }
        present
    }

    pub fn delete_prefix(&mut self, prefix: &[u8]) -> u64 {
        let mut keys = Vec::new();
        self.draft
            .visit_under(prefix, &self.changes, &mut |key, _record| {
                keys.push(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            });
        let count = keys.len() as u64;
        self.changes.extend(keys.into_iter().map(|key| (key, None)));
        count
    }

    /// The first rows, and how many there are: the answer counts all of them, so all keys are passed.
    fn get_prefix(&mut self, prefix: &[u8], limit: u32) -> Result<OpResult, Stop> {
        let rows_max = if limit == 0 {
            ROWS_MAX
        } else {
            ROWS_MAX.min(limit as usize)
        };
        let (mut rows, mut count, mut bytes) = (Vec::new(), 0, self.answer_bytes);
        self.draft.visit_under(prefix, &self.changes, &mut |key, record| {
            count += 1;
            if rows.len() < rows_max {
                let record = record();
                bytes += row_bytes(key, &record);
                rows.push((Bytes::copy_from_slice(key), record));
            }
            // What is refused needs no count.
            if bytes > ANSWER_BYTES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.weigh(bytes - self.answer_bytes)?;
        Ok(OpResult::Got { rows, count })
    }

    fn run(&mut self, op: &Op) -> Result<OpResult, Stop> {
        Ok(match op {
            Op::Put { key, value, lease } => {
                if *lease != 0 && self.draft.lease(*lease).is_none() {
                    return Err(Stop::Refused(Refusal::LeaseNotFound { id: *lease }));
                }
                OpResult::Put {
                    version: self.put(key.clone(), value.clone(), *lease),
                }
            }
            Op::Delete { key } => OpResult::Deleted {
                count: u64::from(self.delete(key)),
            },
            Op::DeletePrefix { prefix } => OpResult::Deleted {
                count: self.delete_prefix(prefix),
            },
            Op::Get { key } => {
                let row = self.get(key).map(|record| (key.clone(), record));
                let rows: Vec<_> = row.into_iter().collect();
                self.weigh(rows.iter().map(|(key, record)| row_bytes(key, record)).sum())?;
                let count = rows.len() as u64;
                OpResult::Got { rows, count }
            }
            Op::GetPrefix { prefix, limit } => self.get_prefix(prefix, *limit)?,
            Op::Add { key, by, min, max } => {
                let value = self.add(key, *by, *min, *max).ok_or(Stop::Failed)?;
                OpResult::Added { value }
            }
        })
    }

    fn weigh(&mut self, bytes: usize) -> Result<(), Stop> {
        self.answer_bytes += bytes;
        if self.answer_bytes > ANSWER_BYTES_MAX {
            return Err(Stop::Refused(Refusal::AnswerTooLarge));
        }
        Ok(())
    }

    fn add(&mut self, key: &Bytes, by: i64, min: Option<i64>, max: Option<i64>) -> Option<i64> {
        let old = self.get(key);
        let present = match &old {
            Some(record) => parse_int(&record.value)?,
            None => 0,
        };
        let value = present.checked_add(by)?;
        if min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max) {
            return None;
        }
        let lease = old.map_or(0, |record| record.lease);
        self.put(key.clone(), Bytes::from(value.to_string()), lease);
        Some(value)
    }
}

/// What a row counts towards the bound of an answer.
fn row_bytes(key: &[u8], record: &Record) -> usize {
    key.len() + record.value.len() + 64
}

/// A decimal 64-bit integer, and nothing else.
pub fn parse_int(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.starts_with('+'))?
        .parse()
        .ok()
}

/// Runs the transaction and, unless it is refused, commits what its branch wrote.
pub fn run<B: Base>(draft: &mut Draft<'_, B>, txn: &Txn) -> Answer {
    let holds = txn.conditions.iter().all(|condition| holds(draft, condition));
    let (branch, ops) = if holds {
        (Branch::Then, &txn.then)
    } else {
        (Branch::Else, &txn.otherwise)
    };
    match run_branch(draft, ops) {
        Ok(results) => Answer::Txn {
            branch,
            failed_op: None,
            results,
        },
        Err((_, Stop::Refused(refusal))) => Answer::Refused(refusal),
        Err((index, Stop::Failed)) if holds => {
            let (branch, ops) = match &txn.failed {
                Some(ops) => (Branch::Failed, ops),
                None => (Branch::Else, &txn.otherwise),
            };
            match run_branch(draft, ops) {
                Ok(results) => Answer::Txn {
                    branch,
                    failed_op: Some(index),
                    results,
                },
                Err((_, Stop::Refused(refusal))) => Answer::Refused(refusal),
                Err(_) => Answer::Txn {
                    branch: Branch::Nothing,
                    failed_op: Some(index),
                    results: Vec::new(),
                },
            }
        }
        Err((index, Stop::Failed)) => run_failed_after_else(draft, txn, index),
    }
}

/// An op of `else` failed: nothing of it is kept, and `failed` may still record that.
fn run_failed_after_else<B: Base>(draft: &mut Draft<'_, B>, txn: &Txn, index: u32) -> Answer {
    let nothing = Answer::Txn {
        branch: Branch::Nothing,
        failed_op: Some(index),
        results: Vec::new(),
    };
    let Some(ops) = &txn.failed else { return nothing };
    match run_branch(draft, ops) {
        Ok(results) => Answer::Txn {
            branch: Branch::Failed,
            failed_op: Some(index),
            results,
        },
        Err((_, Stop::Refused(refusal))) => Answer::Refused(refusal),
        Err((_, Stop::Failed)) => nothing,
    }
}

fn run_branch<B: Base>(draft: &mut Draft<'_, B>, ops: &[Op]) -> Result<Vec<OpResult>, (u32, Stop)> {
    let mut writes = Writes::new(draft);
    let mut results = Vec::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        let index = u32::try_from(index).expect("a transaction has at most a few hundred ops");
        match writes.run(op) {
            Ok(result) => results.push(result),
            Err(stop) => {
                let changes = writes.changes;
                if is_planted(Bug::HalfTransactions) {
                    draft.commit(changes);
                }
                return Err((index, stop));
            }
        }
    }
    let (changes, answer_bytes) = (writes.changes, writes.answer_bytes);
    draft.weight += answer_bytes;
    draft.commit(changes);
    Ok(results)
}

fn holds<B: Base>(draft: &Draft<'_, B>, condition: &Condition) -> bool {
    let head = draft.head(&condition.key);
    let number = |field: fn(&Head) -> u64| head.as_ref().map_or(0, field);
    let ordering = match &condition.test {
        Test::Version(operand) => number(|head| head.version).cmp(operand),
        Test::Created(operand) => number(|head| head.created).cmp(operand),
        Test::Modified(operand) => number(|head| head.modified).cmp(operand),
        Test::Lease(operand) => number(|head| head.lease).cmp(operand),
        Test::Int(operand) => match draft
            .record(&condition.key)
            .map_or(Some(0), |record| parse_int(&record.value))
        {
            Some(value) => value.cmp(operand),
            // What is no integer compares with no integer.
            None => return condition.order == Order::NotEqual,
        },
        // An absent key has no value: it differs from every value and is neither less nor greater.
        Test::Value(operand) => match draft.record(&condition.key) {
            Some(record) => record.value.cmp(operand),
            None => return condition.order == Order::NotEqual,
        },
    };
    match condition.order {
        Order::Equal => ordering.is_eq(),
        Order::NotEqual => ordering.is_ne(),
        Order::Less => ordering.is_lt(),
        Order::LessOrEqual => ordering.is_le(),
        Order::Greater => ordering.is_gt(),
        Order::GreaterOrEqual => ordering.is_ge(),
    }
}
