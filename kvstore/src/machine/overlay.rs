//! The keys under a prefix as a transaction sees them: the base, over it what the batch wrote, and over that what the
//! transaction wrote itself.
//!
//! Invariant: keys come in order and each once, nothing is gathered, and no value of the base is read that nobody asks
//! for, so that a prefix may hold any number of keys. It must not know what an answer may hold.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::base::Base;
use super::state::prefix_end;
use crate::command::Record;

/// What became of keys. `None` = deleted.
pub type Changes = BTreeMap<Bytes, Option<Record>>;

/// Sees a key, and may read its record.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &dyn Fn() -> Record) -> ControlFlow<()>;

/// Visits the live keys under `prefix` until the visitor breaks. Of a key that both layers have, the second one counts.
pub fn visit_under<B: Base>(base: &B, layers: [&Changes; 2], prefix: &[u8], visit: Visit<'_>) {
    let end = prefix_end(prefix);
    let mut written = Written::new(layers, prefix, end.as_deref()).peekable();
    let mut flow = ControlFlow::Continue(());
    base.range(prefix, end.as_deref(), &mut |key, head| {
        while let Some(before) = written.next_if(|(other, _)| other.as_ref() < key) {
            flow = visit_written(before, visit);
            if flow.is_break() {
                return flow;
            }
        }
        flow = match written.next_if(|(other, _)| other.as_ref() == key) {
            Some(instead) => visit_written(instead, visit),
            None => visit(key, &|| head.with_value(base.value(key, head.modified))),
        };
        flow
    });
    while flow.is_continue()
        && let Some(after) = written.next()
    {
        flow = visit_written(after, visit);
    }
}

type Change<'c> = (&'c Bytes, &'c Option<Record>);

fn visit_written((key, change): Change<'_>, visit: Visit<'_>) -> ControlFlow<()> {
    match change {
        Some(record) => visit(key, &|| record.clone()),
        None => ControlFlow::Continue(()),
    }
}

/// Two layers of changes as one, in the order of keys.
struct Written<'c> {
    lower: Peekable<Range<'c, Bytes, Option<Record>>>,
    upper: Peekable<Range<'c, Bytes, Option<Record>>>,
}

impl<'c> Written<'c> {
    fn new([lower, upper]: [&'c Changes; 2], from: &[u8], to: Option<&[u8]>) -> Self {
        let bounds = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let within = |layer: &'c Changes| layer.range::<[u8], _>(bounds).peekable();
        Self {
            lower: within(lower),
            upper: within(upper),
        }
    }
}

impl<'c> Iterator for Written<'c> {
    type Item = Change<'c>;

    fn next(&mut self) -> Option<Change<'c>> {
        let (lower, upper) = (self.lower.peek(), self.upper.peek());
        let next = match (lower, upper) {
            (Some((lower, _)), Some((upper, _))) => *lower.min(upper),
            (Some((key, _)), None) | (None, Some((key, _))) => *key,
            (None, None) => return None,
        };
        let lower = self.lower.next_if(|(key, _)| *key == next);
        let upper = self.upper.next_if(|(key, _)| *key == next);
        upper.or(lower)
    }
}
