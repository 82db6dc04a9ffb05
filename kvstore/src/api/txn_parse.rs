//! The JSON of a transaction, read into a command.
//!
//! All faults are told at once, which is why this is not left to serde: it stops at the first one.

use serde_json::{Map, Value};
use service::config::LimitsConfig;
use service::problem::Result;

use super::fields::{Fields, place};
use crate::command::{Condition, Op, Order, Test, Txn};
use crate::machine::txn::ROWS_MAX;

const OPS: [&str; 4] = ["put", "delete", "get", "add"];

pub(super) fn parse(document: &Value, limits: &LimitsConfig) -> Result<Txn> {
    let mut fields = Fields::new(limits);
    let root = fields.object(document, "");
    let max = limits.txn_ops_max;
    let conditions = fields.list(root, "", "if", max).unwrap_or_default();
    let conditions = conditions.iter().enumerate();
    let conditions = conditions
        .filter_map(|(n, value)| condition(&mut fields, value, &format!("/if/{n}")))
        .collect();
    let txn = Txn {
        conditions,
        then: branch(&mut fields, root, "then", limits).unwrap_or_default(),
        otherwise: branch(&mut fields, root, "else", limits).unwrap_or_default(),
        failed: branch(&mut fields, root, "failed", limits),
    };
    fields.finish()?;
    Ok(txn)
}

fn condition(fields: &mut Fields<'_>, value: &Value, at: &str) -> Option<Condition> {
    let map = fields.object(value, at);
    if map.is_empty() && !value.is_object() {
        return None;
    }
    let key = fields.key(map, at);
    let order = order(fields, map, at);
    let test = match fields.text(map, at, "target") {
        "version" => Test::Version(number(fields, map, at)),
        "create" => Test::Created(number(fields, map, at)),
        "mod" => Test::Modified(number(fields, map, at)),
        "lease" => Test::Lease(number(fields, map, at)),
        "int" => Test::Int(fields.int(map, at, "operand")),
        "value" => Test::Value(fields.bytes(map, at, "operand")),
        // That it is missing, or no string, has been told already.
        "" if !map.get("target").is_some_and(Value::is_string) => return None,
        _ => {
            fields.fault(
                place(at, "target"),
                "must be version, create, mod, value, int or lease",
            );
            return None;
        }
    };
    Some(Condition {
        key,
        test,
        order: order?,
    })
}

fn number(fields: &mut Fields<'_>, map: &Map<String, Value>, at: &str) -> u64 {
    fields.number(map, at, "operand")
}

fn order(fields: &mut Fields<'_>, map: &Map<String, Value>, at: &str) -> Option<Order> {
    Some(match fields.optional_text(map, at, "op") {
        Some("==") => Order::Equal,
        Some("!=") => Order::NotEqual,
        Some("<") => Order::Less,
        Some("<=") => Order::LessOrEqual,
        Some(">") => Order::Greater,
        Some(">=") => Order::GreaterOrEqual,
        None => {
            fields.fault(place(at, "op"), "is missing");
            return None;
        }
        Some(_) => {
            // A wrong type has been told already.
            if map.get("op").is_some_and(Value::is_string) {
                fields.fault(place(at, "op"), "must be ==, !=, <, <=, > or >=");
            }
            return None;
        }
    })
}

fn branch(
    fields: &mut Fields<'_>,
    root: &Map<String, Value>,
    name: &str,
    limits: &LimitsConfig,
) -> Option<Vec<Op>> {
    let list = fields.list(root, "", name, limits.txn_ops_max)?;
    let ops = list.iter().enumerate();
    Some(
        ops.filter_map(|(n, value)| op(fields, value, &format!("/{name}/{n}"), limits))
            .collect(),
    )
}

fn op(fields: &mut Fields<'_>, value: &Value, at: &str, limits: &LimitsConfig) -> Option<Op> {
    let map = fields.object(value, at);
    if map.is_empty() && !value.is_object() {
        return None;
    }
    let mut named = OPS
        .iter()
        .filter_map(|word| map.get(*word).map(|inner| (*word, inner)))
        .filter(|(_, inner)| !inner.is_null());
    let (Some((word, inner)), None) = (named.next(), named.next()) else {
        fields.fault(at, "must have exactly one of put, delete, get and add");
        return None;
    };
    let at = place(at, word);
    let is_object = inner.is_object();
    let inner = fields.object(inner, &at);
    if !is_object {
        return None;
    }
    Some(match word {
        "put" => Op::Put {
            key: fields.key(inner, &at),
            value: fields.bytes(inner, &at, "value"),
            lease: fields.optional_number(inner, &at, "lease").unwrap_or(0),
        },
        "delete" if selects_prefix(fields, inner, &at)? => Op::DeletePrefix {
            prefix: fields.prefix(inner, &at),
        },
        "delete" => Op::Delete {
            key: fields.key(inner, &at),
        },
        "get" if selects_prefix(fields, inner, &at)? => Op::GetPrefix {
            prefix: fields.prefix(inner, &at),
            limit: limit(fields, inner, &at, limits),
        },
        "get" => Op::Get {
            key: fields.key(inner, &at),
        },
        _ => add(fields, inner, &at),
    })
}

/// Whether the op is of a prefix and not of a key; it has exactly one of them.
fn selects_prefix(fields: &mut Fields<'_>, map: &Map<String, Value>, at: &str) -> Option<bool> {
    let has = |name: &str| map.get(name).is_some_and(|value| !value.is_null());
    match (has("key"), has("prefix")) {
        _ if map.is_empty() => {
            fields.fault(place(at, "key"), "is missing");
            None
        }
        (true, false) => Some(false),
        (false, true) => Some(true),
        _ => {
            fields.fault(at, "must have exactly one of key and prefix");
            None
        }
    }
}

/// 0 stands for as many as there may be. More than that a transaction does not answer, however large pages may be.
fn limit(fields: &mut Fields<'_>, map: &Map<String, Value>, at: &str, limits: &LimitsConfig) -> u32 {
    let max = limits.range_rows_max.min(ROWS_MAX);
    let Some(limit) = fields.optional_number(map, at, "limit") else {
        return 0;
    };
    let sound = u32::try_from(limit)
        .ok()
        .filter(|limit| (1..=max).contains(&(*limit as usize)));
    if sound.is_none() && map.get("limit").is_some_and(Value::is_u64) {
        fields.fault(place(at, "limit"), format!("must be 1 to {max}"));
    }
    sound.unwrap_or(1)
}

fn add(fields: &mut Fields<'_>, map: &Map<String, Value>, at: &str) -> Op {
    let key = fields.key(map, at);
    let by = fields.int(map, at, "by");
    let (min, max) = (
        fields.optional_int(map, at, "min"),
        fields.optional_int(map, at, "max"),
    );
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        fields.fault(place(at, "min"), "must not be greater than max");
    }
    Op::Add { key, by, min, max }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(document: Value) -> String {
        let problem = parse(&document, &LimitsConfig::default()).expect_err("it is faulty");
        let faults = problem
            .errors
            .iter()
            .map(|fault| format!("{}: {}\n", fault.pointer, fault.detail));
        format!("{}\n{}", problem.kind.code, faults.collect::<String>())
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let document = json!({
            "if": [{"key": "", "target": "size", "op": "=", "operand": 1}, 7, {"target": "int", "op": "<", "operand": 1.5},
                   {"key": "k", "target": "version", "op": "==", "operand": -1}, {"key": "k", "target": "", "op": "==", "operand": 1}],
            "then": [{"put": {"key": 7}}, {"get": {"key": "a", "prefix": "b"}}, {"put": {}, "get": {}}, {"incr": {}},
                     {"put": {"key": "k", "value": "v", "value_base64": "dg=="}}, {"get": {"prefix": "p", "limit": 0}},
                     {"put": {}}, {"add": {}}, {"put": 5}, {"put": null}],
            "else": {"get": {}},
            "failed": [{"add": {"key": "n", "by": "1", "min": 2, "max": 1}}, {"delete": {}}],
        });
        insta::assert_snapshot!(faults(document), @r#"
        invalid-request
        /if/0/key: must be 1 to 1024 bytes of UTF-8, this has 0
        /if/0/op: must be ==, !=, <, <=, > or >=
        /if/0/target: must be version, create, mod, value, int or lease
        /if/1: must be an object
        /if/2/key: is missing
        /if/2/operand: must be a 64-bit integer
        /if/3/operand: must be a whole number from 0 to 2^64 - 1
        /if/4/target: must be version, create, mod, value, int or lease
        /then/0/put/key: must be a string
        /then/0/put/value: is missing
        /then/1/get: must have exactly one of key and prefix
        /then/2: must have exactly one of put, delete, get and add
        /then/3: must have exactly one of put, delete, get and add
        /then/4/put: `value` and `value_base64` exclude each other
        /then/5/get/limit: must be 1 to 10000
        /then/6/put/key: is missing
        /then/6/put/value: is missing
        /then/7/add/key: is missing
        /then/7/add/by: is missing
        /then/8/put: must be an object
        /then/9: must have exactly one of put, delete, get and add
        /else: must be an array
        /failed/0/add/by: must be a 64-bit integer
        /failed/0/add/min: must not be greater than max
        /failed/1/delete/key: is missing
        "#);
    }

    #[test]
    fn a_fault_of_its_own_kind_has_its_own_code() {
        let long = "k".repeat(1025);
        insta::assert_snapshot!(faults(json!({"then": [{"get": {"key": long}}]})), @r#"
        invalid-key
        /then/0/get/key: must be 1 to 1024 bytes of UTF-8, this has 1025
        "#);
        let large = "v".repeat((1 << 20) + 1);
        insta::assert_snapshot!(faults(json!({"then": [{"put": {"key": "k", "value": large}}]})), @r#"
        too-large
        /then/0/put/value: has 1048577 bytes, at most 1048576 are allowed
        "#);
        insta::assert_snapshot!(faults(json!({"then": vec![json!({"get": {"key": "k"}}); 129]})), @r#"
        invalid-request
        /then: has 129 entries, at most 128 are allowed
        "#);
        insta::assert_snapshot!(faults(json!([])), @r#"
        invalid-request
        : must be an object
        "#);
    }

    #[test]
    fn a_get_asks_for_no_more_rows_than_it_may_answer() {
        let get = |limit: usize| json!({"then": [{"get": {"prefix": "p", "limit": limit}}]});
        for (range_rows_max, max) in [(2000, 2000), (ROWS_MAX, ROWS_MAX), (100_000, ROWS_MAX)] {
            let limits = LimitsConfig {
                range_rows_max,
                ..LimitsConfig::default()
            };
            assert!(parse(&get(max), &limits).is_ok());
            let refused = parse(&get(max + 1), &limits).unwrap_err();
            let [fault] = refused.errors.as_slice() else {
                panic!("{refused:?}")
            };
            let told = (fault.pointer.as_str(), fault.detail.as_str());
            assert_eq!(
                told,
                ("/then/0/get/limit", format!("must be 1 to {max}").as_str())
            );
        }
    }

    #[test]
    fn a_whole_transaction_is_read() {
        let document = json!({
            "if": [{"key": "a", "target": "value", "op": "!=", "operand_base64": "/w=="}],
            "then": [{"put": {"key": "a", "value": "v", "lease": 7}}, {"delete": {"prefix": ""}}, {"get": {"prefix": "p"}}],
            "failed": [],
            "unknown": true,
        });
        let txn = parse(&document, &LimitsConfig::default()).unwrap();
        assert_eq!(
            txn.conditions[0].test,
            Test::Value(bytes::Bytes::from_static(b"\xff"))
        );
        assert_eq!(
            txn.then[1],
            Op::DeletePrefix {
                prefix: bytes::Bytes::new()
            }
        );
        assert_eq!(
            txn.then[2],
            Op::GetPrefix {
                prefix: bytes::Bytes::from_static(b"p"),
                limit: 0
            }
        );
        assert_eq!((txn.otherwise.len(), txn.failed), (0, Some(Vec::new())));
    }
}
