//! Bodies that no honest client sends.
//! Invariant: each is read or refused.

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use service::body;
use service::config::LimitsConfig;

use super::cursor::Cursor;
use super::{tokens, txn_parse};
use crate::bent::feed;

/// Every body as a value first, as the routes read them.
fn feed_values(whole: &[Value], parse: impl Fn(&Value)) {
    let whole: Vec<Vec<u8>> = whole.iter().map(|value| value.to_string().into()).collect();
    feed(&whole, |bytes| {
        let body = Bytes::copy_from_slice(bytes);
        if let Ok(value) = body::json::<Value>(&HeaderMap::new(), &body) {
            parse(&value);
        }
    });
}

#[test]
fn transactions() {
    let whole = json!({
        "if": [{"key": "a", "target": "int", "op": ">=", "operand": -9_223_372_036_854_775_808_i64}],
        "then": [
            {"put": {"key": "a", "value": "b", "lease": "12"}},
            {"add": {"key": "n", "by": 9_223_372_036_854_775_807_i64, "min": 0, "max": 10}},
            {"get": {"prefix": "a", "limit": 10}},
        ],
        "else": [{"delete": {"prefix": "a"}}],
        "failed": [{"get": {"key": "a"}}],
    });
    let limits = LimitsConfig::default();
    feed_values(&[whole], |value| drop(txn_parse::parse(value, &limits)));
}

#[test]
fn rules_of_tokens() {
    let whole =
        json!({"prefixes": [{"prefix": "shop/", "access": "write"}, {"prefix": "", "access": "read"}]});
    let limits = LimitsConfig::default();
    feed_values(&[whole], |value| drop(tokens::parse(value, &limits)));
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
