//! Random commands over few keys, so that they meet each other often.

use bytes::Bytes;
use proptest::prelude::*;

use crate::command::{Action, Condition, Expect, Op, Order, Test, Txn};

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

pub(super) fn action() -> impl Strategy<Value = Action> {
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
