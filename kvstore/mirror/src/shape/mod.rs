//! Which tables the keys of shop, payment and predictors make.
//! Invariant: what a key makes depends on the key and its value alone, so that a copy that followed and one that was
//! rebuilt are the same. No secret gets into a table: no password hash, no session, and of a card only a pseudonym
//! that is not what the store knows it by.

mod pay;
mod predict;
mod shop;
pub(crate) mod table;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

pub(crate) use table::{Cell, Edit, Kind, Table, What};

use crate::row::Change;

pub(crate) use shop::{ORDER_LINES, ORDERS, PRODUCTS};

/// Every table, in the order in which they are made.
pub(crate) static TABLES: [&Table; 9] = [
    &shop::PRODUCTS,
    &shop::ORDERS,
    &shop::ORDER_LINES,
    &shop::CARTS,
    &shop::USERS,
    &pay::CARDS,
    &pay::PAYMENTS,
    &pay::TRANSFERS,
    &predict::STAKES,
];

/// A value that is not what its key promises. It stays in the raw table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not of the form that its key promises")]
pub(crate) struct Shapeless;

type Shaped = Result<Vec<Edit>, Shapeless>;

/// What a change does to the tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) edits: Vec<Edit>,
    pub(crate) shapeless: bool,
}

/// Nothing for keys that no table shows. A value that is not what its key promises does what a deletion would: what
/// stood there before is no longer so.
pub(crate) fn effect(change: &Change) -> Effect {
    let (key, value) = match change {
        Change::Put(row) => (row.key.as_str(), Some(row.value.as_ref())),
        Change::Delete(key) => (key.as_str(), None),
    };
    match edits(key, value) {
        Ok(edits) => Effect {
            edits,
            shapeless: false,
        },
        Err(Shapeless) => Effect {
            edits: without(key),
            shapeless: true,
        },
    }
}

/// What takes out of the tables all that a key brought into them.
pub(crate) fn without(key: &str) -> Vec<Edit> {
    edits(key, None).expect("what is not there has no form")
}

fn edits(key: &str, value: Option<&[u8]>) -> Shaped {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["shop", name, rest @ ..] => shop::edits(&plain(name), rest, value),
        ["pay", rest @ ..] => pay::edits(rest, value),
        ["predict", "model", name] => predict::edits(&plain(name), value),
        _ => Ok(Vec::new()),
    }
}

/// A segment of a key as it was before it was encoded.
fn plain(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn record(value: &[u8]) -> Result<Map<String, Value>, Shapeless> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Shapeless),
    }
}

fn integer(value: &[u8]) -> Result<i64, Shapeless> {
    let text = std::str::from_utf8(value).or(Err(Shapeless))?;
    text.parse().or(Err(Shapeless))
}

/// These members, each under its own name.
fn members(map: &Map<String, Value>, names: &[&'static str]) -> Vec<(&'static str, Cell)> {
    let names = names.iter();
    names.map(|name| (*name, Cell::of(map.get(*name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Row;

    fn put(key: &str, value: &str) -> Vec<Edit> {
        let row = Row {
            key: key.to_owned(),
            value: value.to_owned().into(),
            ..Row::default()
        };
        let effect = effect(&Change::Put(row));
        assert!(!effect.shapeless, "{key}");
        effect.edits
    }

    #[test]
    fn a_product_is_one_row_of_two_keys() {
        let record = put(
            "shop/one/live/goods/7/record",
            r#"{"name":"Rex","species":"dog","price_minor":29999,"created_ms":5}"#,
        );
        let stock = put("shop/one/live/goods/7/stock", "3");
        let key = vec![Cell::text("one"), Cell::text("7")];
        assert_eq!((&record[0].key, &stock[0].key), (&key, &key));
        assert_eq!(stock[0].what, What::Set(vec![("stock", Cell::Integer(3))]));
        let gone = effect(&Change::Delete("shop/one/live/goods/7/record".to_owned())).edits;
        assert_eq!(gone, [PRODUCTS.clear(key, shop::RECORD)]);
    }

    #[test]
    fn names_are_decoded_and_foreign_keys_ignored() {
        let cart = put("shop/one/live/cart/a%2Fb", r#"{"items":[["7",2]]}"#);
        assert_eq!(cart[0].key, [Cell::text("one"), Cell::text("a/b")]);
        assert_eq!(cart.len(), 2, "the old lines go before the new ones come");
        assert!(put("greeting", "hello").is_empty());
        let broken = Change::Put(Row {
            key: "shop/one/live/goods/7/stock".to_owned(),
            value: "many".into(),
            ..Row::default()
        });
        let Effect { edits, shapeless } = effect(&broken);
        assert!(shapeless);
        let gone = effect(&Change::Delete("shop/one/live/goods/7/stock".to_owned()));
        assert_eq!(edits, gone.edits);
    }

    #[test]
    fn a_payment_without_an_order_has_none_of_an_earlier_one() {
        let bare = put("pay/payment/p1/record", r#"{"status":"failed","created_ms":1}"#);
        let What::Set(cells) = &bare[0].what else {
            panic!("{bare:?}");
        };
        let set: Vec<&str> = cells.iter().map(|(name, _)| *name).collect();
        for (name, _) in &pay::PAYMENTS.columns[pay::PAYMENTS.key_columns..] {
            assert!(set.contains(name), "{name} keeps what it was: {set:?}");
        }
    }

    #[test]
    fn what_never_fits_is_taken_out_like_what_is_deleted() {
        for key in [
            "shop/one/live/goods/7/record",
            "shop/one/live/order/u1/5",
            "shop/one/live/cart/u1",
            "shop/one/user/u1",
            "pay/card/c1/record",
            "pay/card/c1/holds",
            "pay/payment/p1/record",
            "pay/payment/p1/capture",
            "pay/funded/c1/1",
            "predict/model/svm",
        ] {
            let broken = Change::Put(Row {
                key: key.to_owned(),
                value: "no JSON".into(),
                ..Row::default()
            });
            let Effect { edits, shapeless } = effect(&broken);
            assert!(shapeless && !edits.is_empty(), "{key}");
            assert_eq!(edits, without(key), "{key}");
        }
    }

    #[test]
    fn no_table_has_a_secret() {
        let card = "1abcdefabcdefabcdefabcdef";
        let all = [
            put("shop/one/user/u1", r#"{"username":"ann","created_ms":1}"#),
            put(
                "shop/one/account/ann",
                r#"{"user":"u1","username":"ann","hash":"$argon2id$x","admin":true}"#,
            ),
            put(
                "shop/one/live/session/5e55",
                r#"{"user":"u1","username":"ann","expires_ms":5}"#,
            ),
            put(
                &format!("pay/card/{card}/record"),
                r#"{"brand":"visa","last4":"4242","currency":"EUR","status":"active","fundings":1}"#,
            ),
            put(
                "pay/payment/p1/record",
                &format!(
                    r#"{{"status":"captured","created_ms":1,"captured":5,"order":{{"fingerprint":"f00","card":"{card}","brand":"visa","last4":"4242","merchant":"m","amount":5,"currency":"EUR","capture":"manual"}}}}"#
                ),
            ),
            put(
                "pay/payment/p1/capture",
                &format!(
                    r#"{{"kind":"capture","debit":"card:{card}","credit":"merchant:m:1","amount":5,"currency":"EUR","created_ms":1}}"#
                ),
            ),
            put(
                &format!("pay/funded/{card}/00000001"),
                &format!(
                    r#"{{"kind":"funding","debit":"funding:1","credit":"card:{card}","amount":5,"currency":"EUR","created_ms":1}}"#
                ),
            ),
        ];
        let text = format!("{all:?}");
        assert!(text.contains("4242") && text.contains("ann"));
        for secret in [card, "argon2id", "5e55", "f00"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
