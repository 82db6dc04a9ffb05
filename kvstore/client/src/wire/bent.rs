//! JSON that neither a node nor a client writes.
//! Invariant: each is read or refused, and what was read is written and read again as the same.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Cluster, Compaction, Hash, NodeStatus};
use super::kv::{Created, Deleted, KeyValue, Page, Put, RevisionAnswer};
use super::lease::{Lease, LeaseStatus};
use super::mirror::{Granted, KeptAnswers, MirrorStatus};
use super::tokens::{NewToken, TokenRules};
use super::txn::{TxnAnswer, TxnRequest};
use super::watch::{Change, Compacted, Position};
use crate::bent::feed;

fn reads<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let again = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&again).expect("what was written can be read");
    assert_eq!(again, read);
    true
}

type Read = fn(&[u8]) -> bool;

/// Each of the whole ones is what stands beside it; the bent ones may be any of them.
fn feed_all(whole: &[(Value, Read)]) {
    for (value, read) in whole {
        assert!(read(value.to_string().as_bytes()), "refused: {value}");
    }
    let texts: Vec<Vec<u8>> = whole.iter().map(|(value, _)| value.to_string().into()).collect();
    feed(&texts, |bytes| {
        for (_, read) in whole {
            read(bytes);
        }
    });
}

fn rows() -> Value {
    json!([
        {"key": "a/é", "value": "b", "create_revision": 5, "mod_revision": u64::MAX, "version": 2, "lease": 0},
        {"key": "", "value_base64": "AJ+Slg==", "mod_revision": 7, "version": 1, "lease": null},
        {"key": "gone"},
    ])
}

#[test]
fn keys_and_pages() {
    let page = json!({"revision": 9, "kvs": rows(), "count": 3, "more": true, "cursor": "AQ"});
    let put = json!({"key": "a", "revision": 9, "version": 1, "created": true});
    feed_all(&[
        (page, reads::<Page>),
        (rows(), reads::<Vec<KeyValue>>),
        (put, reads::<Put>),
        (json!({"key": "a", "revision": 9}), reads::<Created>),
        (json!({"revision": 9, "deleted": 2}), reads::<Deleted>),
        (json!({"revision": 9}), reads::<RevisionAnswer>),
    ]);
}

#[test]
fn transactions() {
    let asked = json!({
        "if": [
            {"key": "a", "target": "int", "op": ">=", "operand": i64::MIN},
            {"key": "b", "target": "value", "op": "==", "operand_base64": "AA=="},
            {"key": "c", "target": "value", "op": "!=", "operand": "text"},
        ],
        "then": [
            {"put": {"key": "a", "value": "b", "lease": 12}},
            {"add": {"key": "n", "by": i64::MAX, "min": 0, "max": 10}},
            {"get": {"prefix": "a", "limit": 10}},
        ],
        "else": [{"delete": {"prefix": "a"}}],
        "failed": [{"get": {"key": "a"}}],
    });
    let results = json!([
        {"put": {"version": 3}},
        {"delete": {"deleted": 1}},
        {"get": {"kvs": rows(), "count": 3}},
        {"add": {"value": -5}},
    ]);
    let answer =
        json!({"revision": 9, "succeeded": false, "branch": "failed", "failed_op": 1, "results": results});
    feed_all(&[(asked, reads::<TxnRequest>), (answer, reads::<TxnAnswer>)]);
}

#[test]
fn changes() {
    let kept = json!({
        "owner": "o", "key": "k", "revision": 9, "expires_ms": 1, "left_ms": 2, "fingerprint": "AA==", "reply": "",
    });
    let change = json!({
        "key": "a", "value": "b", "mod_revision": 9, "version": 2, "lease": 7, "prev": {"key": "a", "value": "c"},
        "granted": {"id": 7, "ttl_ms": 500, "owner": "root"}, "kept": kept,
    });
    feed_all(&[
        (change, reads::<Change>),
        (json!({"answers": [kept], "more": true}), reads::<KeptAnswers>),
        (json!({"revision": 9}), reads::<Position>),
        (json!({"compacted_revision": 9}), reads::<Compacted>),
    ]);
}

#[test]
fn leases_and_mirrors() {
    let status = json!({
        "id": 7, "ttl_ms": 500, "remaining_ms": 20, "owner": "root", "keys": ["a"], "pin": 3,
    });
    let mirror = json!({
        "name": "mirror-sync", "mode": "sync", "on_loss": "degrade", "state": "ok", "acknowledged_revision": 7,
        "lag_revisions": 0, "heard_ms_ago": null,
    });
    feed_all(&[
        (json!({"id": 7, "ttl_ms": u64::MAX}), reads::<Lease>),
        (json!([status]), reads::<Vec<LeaseStatus>>),
        (json!([status]), reads::<Vec<Granted>>),
        (json!([mirror]), reads::<Vec<MirrorStatus>>),
    ]);
}

#[test]
fn the_cluster_and_its_tokens() {
    let member = json!({
        "id": 1, "name": "n1", "address": "127.0.0.1:7001", "peer_address": "127.0.0.1:7101", "role": "leader",
        "voter": true, "last_log": 9, "applied": 8, "lag": null,
    });
    let later = json!({"id": 2, "address": "a:1", "role": "a word of later"});
    let cluster = json!({"cluster_id": "c", "leader": 1, "term": 3, "members": [member, later]});
    let status = json!({
        "id": 1, "name": "n1", "role": "learner", "term": 3, "leader": null, "last_log": 9, "committed": 9,
        "applied": 8, "revision": 7, "compacted_revision": 2, "db_bytes": 1, "uptime_ms": 5, "version": "0.1.0",
        "state_hash": "00ff",
    });
    let rules = json!([{"prefix": "shop/", "access": "write"}, {"prefix": "", "access": "read"}]);
    let token = json!({"name": "shop", "prefixes": rules, "token": "secret"});
    feed_all(&[
        (cluster, reads::<Cluster>),
        (status, reads::<NodeStatus>),
        (json!({"revision": 9, "hash": "00ff"}), reads::<Hash>),
        (json!({"revision": 9}), reads::<Compaction>),
        (
            json!([{"name": "shop", "prefixes": rules}]),
            reads::<Vec<TokenRules>>,
        ),
        (token, reads::<NewToken>),
    ]);
}
