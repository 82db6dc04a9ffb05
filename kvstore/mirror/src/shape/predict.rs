//! The table of the prediction network: what each model has at stake.

use serde_json::Value;

use super::table::Kind::{Integer, Text};
use super::{Cell, Shaped, Shapeless, Table, members, record};

pub(super) static STAKES: Table = Table {
    name: "stakes",
    key_columns: 1,
    columns: &[
        ("model", Text),
        ("url", Text),
        ("stake_micro", Integer),
        ("misses", Integer),
        ("ejected", Integer),
        ("unbonding", Integer),
        ("joined_ms", Integer),
    ],
    indexes: &[],
};

/// What stands under `predict/model/NAME`.
pub(super) fn edits(name: &str, value: Option<&[u8]>) -> Shaped {
    let key = vec![Cell::text(name)];
    let Some(value) = value else {
        return Ok(vec![STAKES.remove(key)]);
    };
    let record = record(value)?;
    let account = record
        .get("account")
        .and_then(Value::as_object)
        .ok_or(Shapeless)?;
    let mut cells = members(&record, &["url", "unbonding", "joined_ms"]);
    cells.extend(members(account, &["stake_micro", "misses", "ejected"]));
    Ok(vec![STAKES.set(key, cells)])
}
