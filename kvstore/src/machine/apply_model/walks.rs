//! Walks that nobody waits for any more.
//! Invariant: they end soon, also where there is nothing to show.

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::Real;
use crate::command::{Action, Expect};
use crate::storage::walk::{Direction, Span, Walk, Want};

const KEYS: u64 = 5000;
const SPAN: Span = Span {
    from: Vec::new(),
    to: None,
    direction: Direction::Ascending,
};

/// Keys that are counted when whoever asked is gone after the first so many looks; and how often was looked.
fn counted(looks_max: u32, walking: impl FnOnce(Walk<'_>, &mut dyn FnMut())) -> (u64, u32) {
    let (looks, mut keys) = (Cell::new(0), 0);
    let is_awaited = || {
        looks.set(looks.get() + 1);
        looks.get() <= looks_max
    };
    let walk = Walk {
        span: &SPAN,
        want: Want::Count,
        is_awaited: &is_awaited,
    };
    walking(walk, &mut || keys += 1);
    (keys, looks.get())
}

#[test]
fn a_walk_that_nobody_waits_for_ends() {
    let mut real = Real::new();
    let puts = (0..KEYS).map(|n| Action::Put {
        key: Bytes::from(format!("{n:05}")),
        value: Bytes::new(),
        lease: 0,
        expect: Expect::Any,
    });
    real.apply(&[puts.collect()]);
    let generation = real.machine.generation();
    let living = |looks_max| {
        counted(looks_max, |walk, count| {
            generation.db().visit_present(walk, &mut |_, _| {
                count();
                ControlFlow::Continue(Want::Count)
            });
        })
    };
    let (keys, looks) = living(u32::MAX);
    assert!(keys == KEYS && looks > 2, "{keys} keys, looked {looks} times");
    let (keys, looks) = living(0);
    assert!(keys < KEYS / 2 && looks == 1, "{keys} keys, looked {looks} times");

    real.apply(&[vec![Action::DeletePrefix { prefix: Bytes::new() }]]);
    let gone = |looks_max| {
        counted(looks_max, |walk, count| {
            generation.db().visit_versions(walk, KEYS + 1, &mut |_, _| {
                count();
                ControlFlow::Continue(Want::Count)
            });
        })
    };
    let (keys, looks) = gone(u32::MAX);
    assert!(keys == 0 && looks > 2, "{keys} keys, looked {looks} times");
    assert_eq!(gone(0), (0, 1));
}
