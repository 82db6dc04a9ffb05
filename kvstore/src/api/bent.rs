//! Bodies that no honest client sends.
//! Invariant: each is read or refused.

use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use serde_json::{Value, json};
use service::body;
use service::config::LimitsConfig;
use service::problem::{Problem, Result};

use super::cursor::Cursor;
use super::params::{self, Params};
use super::{cluster, leases, maintenance, mirrors, tokens, txn_parse};
use crate::bent::feed;

/// Every body as a value first, as the routes read them; the whole ones are taken.
fn feed_values<T>(whole: &[Value], parse: impl Fn(&Value) -> Result<T>) {
    for value in whole {
        assert!(parse(value).is_ok(), "refused: {value}");
    }
    let whole: Vec<Vec<u8>> = whole.iter().map(|value| value.to_string().into()).collect();
    feed(&whole, |bytes| {
        let body = Bytes::copy_from_slice(bytes);
        let read = body::json::<Value>(&HeaderMap::new(), &body);
        if let Err(refused) = read.and_then(|value| parse(&value)) {
            check_refusal(&refused);
        }
    });
}

/// Who sent it is told so.
fn check_refusal(refused: &Problem) {
    assert!(refused.status().is_client_error(), "{refused}");
}

#[test]
fn transactions() {
    let whole = json!({
        "if": [{"key": "a", "target": "int", "op": ">=", "operand": -9_223_372_036_854_775_808_i64}],
        "then": [
            {"put": {"key": "a", "value": "b", "lease": 12}},
            {"add": {"key": "n", "by": 9_223_372_036_854_775_807_i64, "min": 0, "max": 10}},
            {"get": {"prefix": "a", "limit": 10}},
        ],
        "else": [{"delete": {"prefix": "a"}}],
        "failed": [{"get": {"key": "a"}}],
    });
    let limits = LimitsConfig::default();
    feed_values(&[whole], |value| txn_parse::parse(value, &limits));
}

#[test]
fn rules_of_tokens() {
    let whole =
        json!({"prefixes": [{"prefix": "shop/", "access": "write"}, {"prefix": "", "access": "read"}]});
    let limits = LimitsConfig::default();
    feed_values(&[whole], |value| tokens::parse(value, &limits));
}

#[test]
fn leases_that_are_asked_for() {
    let whole = [
        json!({"ttl_ms": 500}),
        json!({"ttl_ms": 86_400_000, "pin": u64::MAX}),
        json!({"ttl_ms": 1000, "pin": null}),
    ];
    let limits = LimitsConfig::default();
    feed_values(&whole, |value| leases::parse(value, &limits));
}

#[test]
fn compactions_and_transfers() {
    let limits = LimitsConfig::default();
    feed_values(&[json!({"revision": u64::MAX})], |value| {
        maintenance::parse_compaction(value, &limits)
    });
    feed_values(&[json!({"to": 3})], |value| {
        cluster::parse_transfer(value, &limits)
    });
}

#[test]
fn members() {
    let whole = [
        json!({"id": 4, "peer_address": "127.0.0.1:7104", "client_address": "n4.example:7004"}),
        json!({"id": (1_u64 << 53) - 1, "peer_address": "[::1]:1", "client_address": "a:65535"}),
    ];
    let limits = LimitsConfig::default();
    feed_values(&whole, |value| cluster::parse_member(value, &limits));
}

#[test]
fn announcements_of_mirrors() {
    let whole = [
        json!({"mode": "sync", "on_loss": "block", "incarnation": "0123456789abcdef"}),
        json!({"mode": "async"}),
    ];
    let limits = LimitsConfig::default();
    feed_values(&whole, |value| mirrors::parse_announcement(value, &limits));
}

#[test]
fn acknowledgements_of_mirrors() {
    let whole = [
        json!({"revision": 12, "incarnation": "0123456789abcdef"}),
        json!({"revision": u64::MAX}),
    ];
    let limits = LimitsConfig::default();
    feed_values(&whole, |value| mirrors::parse_acknowledgement(value, &limits));
}

/// Also those of routes without a body, such as that of a promotion.
#[test]
fn paths_and_queries() {
    let read = |uri: &Uri| -> Result<()> {
        let path = uri.path();
        if path.starts_with("/v1/leases/") {
            leases::id_of(uri)?;
        } else if path.starts_with("/v1/cluster/members/") {
            cluster::id_of(uri)?;
        } else if path.starts_with("/v1/mirrors/") {
            mirrors::name_of(uri)?;
        } else if path.starts_with("/v1/kv/") {
            params::key(uri, 64)?;
        }
        let params = Params::of(uri);
        params.level()?;
        params.revision()?;
        params.text("prefix")?;
        params.flag("keys_only")?;
        Ok(())
    };
    let whole = [
        "/v1/leases/18446744073709551615?consistency=linearizable",
        "/v1/cluster/members/4/promote",
        "/v1/mirrors/a-b_c.1/ack",
        "/v1/kv/a%2Fb/%C3%A9?revision=18446744073709551615&keys_only=1&prefix=a+%25",
    ];
    for target in whole {
        let target = Uri::from_static(target);
        assert!(read(&target).is_ok(), "refused: {target}");
    }
    feed(&whole.map(|target| target.as_bytes().to_vec()), |bytes| {
        if let Ok(target) = Uri::try_from(bytes)
            && let Err(refused) = read(&target)
        {
            check_refusal(&refused);
        }
    });
}

#[test]
fn cursors() {
    let secret = b"a secret";
    feed(&[b"AQAAAA".to_vec()], |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(Cursor::decode(text, secret));
        }
    });
}
