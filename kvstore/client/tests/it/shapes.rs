//! The wire's JSON, to the letter.

use insta::assert_snapshot;
use kvstore_client::wire::cluster::{Cluster, NodeStatus};
use kvstore_client::wire::headers;
use kvstore_client::wire::kv::{KeyValue, Page, Put};
use kvstore_client::wire::lease::{LeaseRequest, LeaseStatus};
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use kvstore_client::wire::problem::Problem;
use kvstore_client::wire::tokens::{Access, NewToken, Rule, TokenRules};
use kvstore_client::wire::txn::{Branch, Comparison, Condition, Op, OpResult, TxnAnswer, TxnRequest};
use kvstore_client::wire::watch::Change;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(
        &serde_json::from_str::<T>(&text).unwrap(),
        value,
        "reading back {text}"
    );
    text
}

fn fault<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    serde_json::from_str::<T>(text).unwrap_err().to_string()
}

fn kv(value: Option<&'static [u8]>) -> KeyValue {
    KeyValue {
        key: "a".to_owned(),
        value: value.map(Into::into),
        create_revision: 1,
        mod_revision: 2,
        version: 3,
        lease: 0,
    }
}

#[test]
fn values_are_text_or_base64() {
    assert_snapshot!(json(&kv(Some(b"x"))), @r#"{"key":"a","value":"x","create_revision":1,"mod_revision":2,"version":3,"lease":0}"#);
    assert_snapshot!(json(&kv(Some(&[0xFF]))), @r#"{"key":"a","value_base64":"/w==","create_revision":1,"mod_revision":2,"version":3,"lease":0}"#);
    assert_snapshot!(json(&kv(Some(b""))), @r#"{"key":"a","value":"","create_revision":1,"mod_revision":2,"version":3,"lease":0}"#);
    assert_snapshot!(json(&kv(None)), @r#"{"key":"a","create_revision":1,"mod_revision":2,"version":3,"lease":0}"#);
    assert_snapshot!(fault::<KeyValue>(r#"{"key":"a","value":"x","value_base64":"eA=="}"#), @"`value` and `value_base64` exclude each other");
    assert!(fault::<KeyValue>(r#"{"key":"a","value_base64":"*"}"#).starts_with("not base64"));
}

#[test]
fn pages_and_puts() {
    let page = Page {
        revision: 9,
        kvs: vec![],
        count: 0,
        more: false,
        cursor: None,
    };
    assert_snapshot!(json(&page), @r#"{"revision":9,"kvs":[],"count":0,"more":false}"#);
    let put = Put {
        key: "a".to_owned(),
        revision: 1,
        version: 1,
        created: true,
    };
    assert_snapshot!(json(&put), @r#"{"key":"a","revision":1,"version":1,"created":true}"#);
}

#[test]
fn transactions() {
    let txn = TxnRequest {
        conditions: vec![
            Condition::absent("a"),
            Condition::value("b", Comparison::NotEqual, "x"),
            Condition::value("b", Comparison::Equal, vec![0xFF]),
            Condition::int("c", Comparison::GreaterOrEqual, -5),
        ],
        then: vec![
            Op::put("a", "1"),
            Op::put_leased("a", vec![0xFF], 7),
            Op::delete("b"),
            Op::delete_prefix(""),
        ],
        otherwise: vec![Op::get("a"), Op::get_prefix("p/", Some(3))],
        failed: Some(vec![Op::add("c", -1, Some(0), None)]),
    };
    assert_snapshot!(json(&txn), @r#"{"if":[{"key":"a","target":"version","op":"==","operand":0},{"key":"b","target":"value","op":"!=","operand":"x"},{"key":"b","target":"value","op":"==","operand_base64":"/w=="},{"key":"c","target":"int","op":">=","operand":-5}],"then":[{"put":{"key":"a","value":"1"}},{"put":{"key":"a","value_base64":"/w==","lease":7}},{"delete":{"key":"b"}},{"delete":{"prefix":""}}],"else":[{"get":{"key":"a"}},{"get":{"prefix":"p/","limit":3}}],"failed":[{"add":{"key":"c","by":-1,"min":0}}]}"#);
    assert_snapshot!(json(&TxnRequest::default()), @"{}");
}

#[test]
fn a_missing_failed_branch_is_not_an_empty_one() {
    let empty: TxnRequest = serde_json::from_str(r#"{"failed":[]}"#).unwrap();
    assert_eq!(empty.failed, Some(Vec::new()));
    let missing: TxnRequest = serde_json::from_str("{}").unwrap();
    assert_eq!(missing.failed, None);
}

#[test]
fn unknown_fields_are_ignored_in_every_part_of_a_transaction() {
    let text = r#"{"x":1,"if":[{"key":"a","target":"mod","op":"<","operand":3,"x":1}],
        "then":[{"put":{"key":"a","value":"","x":1},"x":1},{"delete":{"key":"a","x":1}},{"get":{"prefix":"a","x":1}},{"add":{"key":"a","by":1,"x":1}}]}"#;
    let txn: TxnRequest = serde_json::from_str(text).unwrap();
    assert_eq!((txn.conditions.len(), txn.then.len()), (1, 4));
}

#[test]
fn transactions_that_contradict_themselves_are_refused() {
    assert_snapshot!(fault::<Op>("{}"), @"an operation has exactly one of `put`, `delete`, `get` and `add`");
    assert_snapshot!(fault::<Op>(r#"{"get":{"key":"a"},"add":{"key":"a","by":1}}"#), @"an operation has exactly one of `put`, `delete`, `get` and `add`");
    assert!(fault::<Op>(r#"{"get":{}}"#).starts_with("exactly one of `key` and `prefix` is needed"));
    assert!(fault::<Op>(r#"{"get":{"key":"a","prefix":"a"}}"#).starts_with("exactly one of"));
    assert!(fault::<Op>(r#"{"put":{"key":"a"}}"#).starts_with("missing field `value`"));
    let condition = |target: &str, operand: &str| {
        fault::<Condition>(&format!(
            r#"{{"key":"a","target":"{target}","op":"=="{operand}}}"#
        ))
    };
    assert_snapshot!(condition("value", r#","operand":1"#), @"the operand of `value` is a string");
    assert_snapshot!(condition("int", r#","operand":"1""#), @"only the operand of `value` is a string; of all others it is an integer");
    assert_snapshot!(condition("int", ""), @"missing field `operand`");
    assert!(condition("int", r#","operand":1.5"#).starts_with("invalid type: floating point"));
    assert!(condition("int", r#","operand":9223372036854775808"#).starts_with("invalid value: integer"));
    assert!(condition("size", r#","operand":1"#).starts_with("unknown variant `size`"));
}

#[test]
fn transaction_answers() {
    let answer = TxnAnswer {
        revision: 8,
        succeeded: false,
        branch: Branch::Failed,
        failed_op: Some(1),
        results: vec![
            OpResult::Put { version: 2 },
            OpResult::Delete { deleted: 0 },
            OpResult::Get {
                kvs: vec![],
                count: 0,
            },
            OpResult::Add { value: -3 },
        ],
    };
    assert_snapshot!(json(&answer), @r#"{"revision":8,"succeeded":false,"branch":"failed","failed_op":1,"results":[{"put":{"version":2}},{"delete":{"deleted":0}},{"get":{"kvs":[],"count":0}},{"add":{"value":-3}}]}"#);
}

#[test]
fn changes() {
    let put = Change {
        key: "a".to_owned(),
        value: Some("x".into()),
        create_revision: 1,
        mod_revision: 2,
        version: 2,
        lease: 0,
        prev: Some(kv(Some(b"w"))),
        granted: None,
        kept: None,
    };
    assert_snapshot!(json(&put), @r#"{"key":"a","value":"x","create_revision":1,"mod_revision":2,"version":2,"prev":{"key":"a","value":"w","create_revision":1,"mod_revision":2,"version":3,"lease":0}}"#);
    let delete = Change {
        value: None,
        prev: None,
        version: 0,
        ..put
    };
    assert_snapshot!(json(&delete), @r#"{"key":"a","create_revision":1,"mod_revision":2,"version":0}"#);
    let aside = Change {
        granted: Some(Granted {
            id: 9,
            ttl_ms: 500,
            owner: "shop".to_owned(),
        }),
        kept: Some(KeptAnswer {
            owner: "shop".to_owned(),
            key: "once".to_owned(),
            revision: 2,
            expires_ms: 77,
            left_ms: Some(5),
            fingerprint: "f".into(),
            reply: "\u{0}".into(),
        }),
        ..delete
    };
    assert_snapshot!(json(&aside), @r#"{"key":"a","create_revision":1,"mod_revision":2,"version":0,"granted":{"id":9,"ttl_ms":500,"owner":"shop"},"kept":{"owner":"shop","key":"once","revision":2,"expires_ms":77,"left_ms":5,"fingerprint":"Zg==","reply":"AA=="}}"#);
    assert_eq!(serde_json::from_str::<Change>(&json(&aside)).unwrap(), aside);
}

#[test]
fn leases_tokens_and_problems() {
    let request = LeaseRequest {
        ttl_ms: 5000,
        pin: None,
    };
    assert_snapshot!(json(&request), @r#"{"ttl_ms":5000}"#);
    let pinned = LeaseRequest {
        pin: Some(4),
        ..request
    };
    assert_snapshot!(json(&pinned), @r#"{"ttl_ms":5000,"pin":4}"#);
    let status = LeaseStatus {
        id: 1,
        ttl_ms: 5000,
        remaining_ms: 10,
        owner: "shop".to_owned(),
        keys: vec!["a".to_owned()],
        pin: None,
    };
    assert_snapshot!(json(&status), @r#"{"id":1,"ttl_ms":5000,"remaining_ms":10,"owner":"shop","keys":["a"]}"#);
    let prefixes = vec![Rule {
        prefix: "shop/".to_owned(),
        access: Access::Write,
    }];
    let rules = TokenRules {
        name: "shop".to_owned(),
        prefixes: prefixes.clone(),
    };
    assert_snapshot!(json(&rules), @r#"{"name":"shop","prefixes":[{"prefix":"shop/","access":"write"}]}"#);
    let token = NewToken {
        name: "shop".to_owned(),
        prefixes,
        token: "hidden-word".to_owned(),
    };
    assert!(json(&token).contains("hidden-word"));
    assert!(!format!("{token:?}").contains("hidden-word"));
    let problem: Problem = serde_json::from_str(
        r#"{"type":"/problems/compacted","title":"Compacted","status":410,"detail":"d","code":"compacted","request_id":"r","errors":[{"pointer":"/a","detail":"x"}],"revision":5}"#,
    )
    .unwrap();
    assert_eq!(problem.number("revision"), Some(5));
    assert_snapshot!(problem.to_string(), @"d (410 compacted); /a: x");
}

#[test]
fn clusters_and_nodes() {
    let text = r#"{"cluster_id":"c","leader":null,"term":3,"members":[{"id":1,"name":"n1","address":"a:1","peer_address":"a:2","role":"unreachable","voter":true,"last_log":null,"applied":null,"lag":null}]}"#;
    let cluster: Cluster = serde_json::from_str(text).unwrap();
    assert_eq!(json(&cluster), text);
    let text = r#"{"id":1,"name":"n1","role":"leader","term":3,"leader":1,"last_log":9,"committed":9,"applied":9,"revision":5,"compacted_revision":0,"db_bytes":100,"uptime_ms":7,"version":"0.1.0","state_hash":"00ff"}"#;
    let status: NodeStatus = serde_json::from_str(text).unwrap();
    assert_eq!(json(&status), text);
    assert_snapshot!(format!("{:>8}|", status.role), @"  leader|");
}

#[test]
fn read_levels() {
    for text in ["linearizable", "local", "bounded:50", "at_least:7"] {
        assert_eq!(text.parse::<Consistency>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "Local",
        "bounded",
        "bounded:",
        "bounded:-1",
        "at_least:+7",
        "local:1",
        "bounded:99999999999999999999",
    ] {
        assert!(text.parse::<Consistency>().is_err(), "{text:?}");
    }
}

#[test]
fn entity_tags() {
    assert_eq!(headers::etag(7), "\"7\"");
    assert_eq!(headers::revision_of_etag(" W/\"7\""), Some(7));
    for text in ["7", "\"\"", "\"+7\"", "\"7", "*", "\"x\""] {
        assert_eq!(headers::revision_of_etag(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_survive(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let before = KeyValue { value: Some(value.clone().into()), ..kv(None) };
        json(&before);
        json(&Op::put("a", value.clone()));
        json(&Condition::value("a", Comparison::Less, value));
    }
}
