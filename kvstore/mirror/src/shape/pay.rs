//! The tables of the payment service: cards without what identifies them, payments, and every transfer.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::table::Kind::{Integer, Text};
use super::{Cell, Shaped, Table, integer, members, plain, record};

pub(super) static CARDS: Table = Table {
    name: "cards",
    key_columns: 1,
    columns: &[
        ("id", Text),
        ("brand", Text),
        ("last4", Text),
        ("currency", Text),
        ("status", Text),
        ("available_minor", Integer),
        ("credits_minor", Integer),
        ("debits_minor", Integer),
        ("holds_minor", Integer),
    ],
    indexes: &[],
};

pub(super) static PAYMENTS: Table = Table {
    name: "payments",
    key_columns: 1,
    columns: &[
        ("id", Text),
        ("status", Text),
        ("amount_minor", Integer),
        ("captured_minor", Integer),
        ("currency", Text),
        ("merchant", Text),
        ("order_ref", Text),
        ("card", Text),
        ("brand", Text),
        ("last4", Text),
        ("capture", Text),
        ("decline", Text),
        ("created_ms", Integer),
        ("expires_ms", Integer),
    ],
    indexes: &[&["merchant", "order_ref"], &["card"], &["status"]],
};

pub(super) static TRANSFERS: Table = Table {
    name: "transfers",
    key_columns: 2,
    columns: &[
        // Of the payment, or of the card that was funded.
        ("owner", Text),
        ("step", Text),
        ("kind", Text),
        ("debit", Text),
        ("credit", Text),
        ("amount_minor", Integer),
        ("currency", Text),
        ("created_ms", Integer),
    ],
    indexes: &[&["debit"], &["credit"], &["created_ms"]],
};

/// What stands below `pay/`.
pub(super) fn edits(rest: &[&str], value: Option<&[u8]>) -> Shaped {
    match rest {
        ["card", id, "record"] => card(id, value),
        ["card", id, "available"] => counter(id, "available_minor", value),
        ["card", id, "credits"] => counter(id, "credits_minor", value),
        ["card", id, "debits"] => counter(id, "debits_minor", value),
        ["card", id, "holds"] => counter(id, "holds_minor", value),
        ["payment", id, "record"] => payment(&plain(id), value),
        // A sum, and no transfer.
        ["payment", _, "refunded"] => Ok(Vec::new()),
        ["payment", id, "refund", number] => transfer(plain(id), format!("refund/{}", plain(number)), value),
        ["payment", id, step] => transfer(plain(id), (*step).to_owned(), value),
        ["funded", card, number] => transfer(pseudonym(card), format!("funding/{number}"), value),
        _ => Ok(Vec::new()),
    }
}

/// The store knows a card by a keyed hash of its number. Whoever gets the key could look numbers up by that, but not
/// by this.
fn pseudonym(card: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"menagerie card in a mirror ");
    hash.update(card.as_bytes());
    let mut name = String::from("card_");
    for byte in &hash.finalize()[..6] {
        write!(name, "{byte:02x}").expect("writing to memory does not fail");
    }
    name
}

/// The name of an account, which of cards has the card in it.
fn account(value: Option<&Value>) -> Cell {
    match value.and_then(Value::as_str) {
        Some(name) => match name.strip_prefix("card:") {
            Some(card) => Cell::Text(pseudonym(card)),
            None => Cell::text(name),
        },
        None => Cell::Null,
    }
}

/// What the record of a card brings; its sums stand under keys of their own.
const CARD: [&str; 4] = ["brand", "last4", "currency", "status"];

fn card(id: &str, value: Option<&[u8]>) -> Shaped {
    let key = vec![Cell::Text(pseudonym(id))];
    let Some(value) = value else {
        return Ok(vec![CARDS.clear(key, CARD)]);
    };
    Ok(vec![CARDS.set(key, members(&record(value)?, &CARD))])
}

fn counter(id: &str, column: &'static str, value: Option<&[u8]>) -> Shaped {
    let key = vec![Cell::Text(pseudonym(id))];
    let Some(value) = value else {
        return Ok(vec![CARDS.clear(key, [column])]);
    };
    Ok(vec![
        CARDS.set(key, vec![(column, Cell::Integer(integer(value)?))]),
    ])
}

fn payment(id: &str, value: Option<&[u8]>) -> Shaped {
    let key = vec![Cell::text(id)];
    let Some(value) = value else {
        return Ok(vec![PAYMENTS.remove(key)]);
    };
    let record = record(value)?;
    let mut cells = members(&record, &["status", "created_ms", "decline"]);
    cells.push((
        "captured_minor",
        record
            .get("captured")
            .map_or(Cell::Integer(0), |sum| Cell::of(Some(sum))),
    ));
    // Without an order its columns say so, whatever they said before.
    let none = Map::new();
    let order = record.get("order").and_then(Value::as_object).unwrap_or(&none);
    let names = [
        "currency",
        "merchant",
        "order_ref",
        "brand",
        "last4",
        "capture",
        "expires_ms",
    ];
    cells.extend(members(order, &names));
    cells.push(("amount_minor", Cell::of(order.get("amount"))));
    let card = order.get("card").and_then(Value::as_str);
    cells.push((
        "card",
        card.map_or(Cell::Null, |card| Cell::Text(pseudonym(card))),
    ));
    Ok(vec![PAYMENTS.set(key, cells)])
}

fn transfer(owner: String, step: String, value: Option<&[u8]>) -> Shaped {
    let key = vec![Cell::Text(owner), Cell::Text(step)];
    let Some(value) = value else {
        return Ok(vec![TRANSFERS.remove(key)]);
    };
    let record = record(value)?;
    let mut cells = members(&record, &["kind", "currency", "created_ms"]);
    cells.push(("amount_minor", Cell::of(record.get("amount"))));
    cells.push(("debit", account(record.get("debit"))));
    cells.push(("credit", account(record.get("credit"))));
    Ok(vec![TRANSFERS.set(key, cells)])
}
