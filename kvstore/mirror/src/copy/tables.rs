//! Rows of the copy in SQLite: the raw table, and those that its keys make.
//! Invariant: the raw table gets every change, whatever the other tables make of it. Who calls holds the transaction.

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params, params_from_iter};

use super::sql;
use super::sqlite::signed;
use crate::row::{Change, Row};
use crate::shape::{self, Cell, Edit, Effect, TABLES, What};

const PUT: &str = "INSERT INTO kv (key, value, create_revision, mod_revision, version, lease, lease_ttl_ms, lease_owner) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, \
                   create_revision = excluded.create_revision, mod_revision = excluded.mod_revision, \
                   version = excluded.version, lease = excluded.lease, lease_ttl_ms = excluded.lease_ttl_ms, \
                   lease_owner = excluded.lease_owner";

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Answers how many values were not of the form that their keys promise.
pub(super) fn change(connection: &Connection, change: &Change) -> anyhow::Result<u64> {
    match change {
        Change::Put(row) => {
            let mut statement = connection.prepare_cached(PUT)?;
            let granted = row.granted.as_ref();
            statement.execute(params![
                row.key,
                row.value.as_ref(),
                signed(row.created)?,
                signed(row.modified)?,
                signed(row.version)?,
                signed(row.lease)?,
                signed(granted.map_or(0, |lease| lease.ttl_ms))?,
                granted.map_or("", |lease| lease.owner.as_str()),
            ])?;
        }
        Change::Delete(key) => {
            connection
                .prepare_cached("DELETE FROM kv WHERE key = ?")?
                .execute([key])?;
        }
    }
    reshape(connection, change)
}

fn reshape(connection: &Connection, change: &Change) -> anyhow::Result<u64> {
    let Effect { edits, shapeless } = shape::effect(change);
    match carry_out(connection, &edits) {
        // Tried again it would fail again, and hold up everything behind it.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            tracing::warn!(%error, "a table does not take what a key makes of it");
            let (Change::Put(Row { key, .. }) | Change::Delete(key)) = change;
            carry_out(connection, &shape::without(key))?;
            Ok(1)
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(u64::from(shapeless)),
    }
}

fn carry_out(connection: &Connection, edits: &[Edit]) -> rusqlite::Result<()> {
    edits.iter().try_for_each(|one| edit(connection, one))
}

fn edit(connection: &Connection, edit: &Edit) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&sql::edit(edit))?;
    let cells = match &edit.what {
        What::Set(cells) => cells.as_slice(),
        What::Clear(_) | What::Remove => &[],
    };
    let cells = cells.iter().map(|(_, cell)| cell);
    statement.execute(params_from_iter(edit.key.iter().chain(cells)))?;
    if matches!(edit.what, What::Clear(_)) {
        let mut statement = connection.prepare_cached(&sql::remove_empty(edit.table))?;
        statement.execute(params_from_iter(&edit.key))?;
    }
    Ok(())
}

/// Makes the other tables of the raw one, after another version of this program made them.
pub(super) fn make_anew(connection: &Connection) -> anyhow::Result<()> {
    for table in TABLES {
        connection.execute(&format!("DELETE FROM \"{}\"", table.name), [])?;
    }
    let mut statement = connection.prepare("SELECT key, value FROM kv ORDER BY key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let put = Change::Put(Row {
            key: row.get(0)?,
            value: Bytes::copy_from_slice(row.get_ref(1)?.as_bytes()?),
            ..Row::default()
        });
        reshape(connection, &put)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::sqlite::last;
    use crate::copy::{Maps, Record};
    use crate::shape::ORDERS;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&sql::schema()).unwrap();
        connection
    }

    fn put(key: &str, value: &str) -> Change {
        Change::Put(Row {
            key: key.to_owned(),
            value: value.to_owned().into(),
            ..Row::default()
        })
    }

    fn delete(key: &str) -> Change {
        Change::Delete(key.to_owned())
    }

    /// Carries these out one after the other; answers what is left of each table, which must be what the keys that
    /// are left make alone.
    fn follows(changes: &[Change]) -> String {
        let connection = database();
        let mut maps = Maps::default();
        for one in changes {
            change(&connection, one).unwrap();
            for edit in shape::effect(one).edits {
                maps.edit(edit);
            }
        }
        let select = |table| super::super::sqlite::select(&connection, table, &[]).unwrap();
        let followed = TABLES.map(select);
        for (table, found) in TABLES.iter().zip(&followed) {
            assert_eq!(maps.select(table, &[]), *found, "{} in memory", table.name);
        }
        make_anew(&connection).unwrap();
        assert_eq!(TABLES.map(select), followed, "what the keys make");
        let left = TABLES.iter().zip(&followed).filter(|(_, rows)| !rows.is_empty());
        let left = left.map(|(table, rows)| format!("{} {}", table.name, rows.len()));
        left.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_row_of_several_keys_stays_until_the_last_of_them_is_gone() {
        let (record, stock) = ("shop/one/live/goods/7/record", "shop/one/live/goods/7/stock");
        let product = [put(record, r#"{"name":"Rex","price_minor":5}"#), put(stock, "3")];
        let after = |changes: &[Change]| follows(&[&product[..], changes].concat());
        assert_eq!(after(&[]), "products 1");
        assert_eq!(after(&[delete(record)]), "products 1");
        assert_eq!(after(&[delete(stock)]), "products 1");
        assert_eq!(after(&[delete(record), delete(stock)]), "");
        assert_eq!(after(&[delete(stock), delete(record)]), "");
        assert_eq!(after(&[put(record, "[]"), put(stock, "many")]), "");
        assert_eq!(after(&[put(record, "{}"), delete(stock)]), "");
        let card = [
            put("pay/card/c/record", r#"{"brand":"visa"}"#),
            put("pay/card/c/holds", "4"),
        ];
        let after = |changes: &[Change]| follows(&[&card[..], changes].concat());
        assert_eq!(after(&[delete("pay/card/c/record")]), "cards 1");
        assert_eq!(
            after(&[delete("pay/card/c/holds"), delete("pay/card/c/record")]),
            ""
        );
    }

    /// Of one user among others whose names begin alike, and however many there are, no more than is asked for.
    #[test]
    fn the_last_rows_are_found_from_the_end() {
        let (connection, mut maps) = (database(), Maps::default());
        for user in ["a", "a%00", "ab", "%41"] {
            for id in ["3", "20", "1", "100"] {
                let order = r#"{"status":"paid","created_ms":5,"lines":[]}"#;
                let order = put(&format!("shop/one/live/order/{user}/{id}"), order);
                change(&connection, &order).unwrap();
                for edit in shape::effect(&order).edits {
                    maps.edit(edit);
                }
            }
        }
        let key = [Cell::text("one"), Cell::text("a")];
        let ids = |before: Option<&str>, limit| {
            let before = before.map(Cell::text);
            let found = last(&connection, &ORDERS, &key, before.as_ref(), limit).unwrap();
            assert_eq!(maps.last(&ORDERS, &key, before.as_ref(), limit), found);
            let user = |row: &Record| row["user_id"] == "a" && row["status"] == "paid";
            assert!(found.iter().all(user), "{found:?}");
            let ids = found.iter().map(|row| row["id"].as_str().unwrap().to_owned());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids(None, 9), ["3", "20", "100", "1"]);
        assert_eq!(ids(None, 2), ["3", "20"]);
        assert_eq!(ids(Some("20"), 2), ["100", "1"]);
        assert_eq!(ids(Some("1"), 2), [""; 0]);
        for before in [false, true] {
            let plan = format!("EXPLAIN QUERY PLAN {}", sql::last(&ORDERS, 2, before));
            let mut statement = connection.prepare(&plan).unwrap();
            let given = params_from_iter(vec![Cell::Integer(1); 3 + usize::from(before)]);
            let steps = statement.query_map(given, |row| row.get::<_, String>(3)).unwrap();
            let steps = steps.map(Result::unwrap).collect::<Vec<_>>().join("; ");
            assert!(steps.contains("SEARCH") && !steps.contains("B-TREE"), "{steps}");
        }
    }

    #[test]
    fn what_is_odd_holds_nothing_up() {
        let cart = "shop/one/live/cart/u";
        for odd in [
            r#"{"items":[5]}"#,
            r#"{"items":[[7,2]]}"#,
            r#"{"items":[["7","2"]]}"#,
            r#"{"items":[["7"]]}"#,
        ] {
            let changes = [put(cart, r#"{"items":[["7",2],["8",1]]}"#), put(cart, odd)];
            assert_eq!(follows(&changes), "", "{odd}");
        }
        // Kinds are the columns' own, in memory as in SQLite.
        let record = r#"{"name":5,"price_minor":"12","species":true,"category":1.5,"created_ms":"x"}"#;
        assert_eq!(
            follows(&[put("shop/one/live/goods/7/record", record)]),
            "products 1"
        );
    }

    /// As a table would that has grown a rule since.
    #[test]
    fn what_a_table_refuses_is_in_the_raw_one_alone() {
        let connection = database();
        let rule = "CREATE TRIGGER rule BEFORE INSERT ON carts WHEN NEW.quantity > 5 \
                    BEGIN SELECT RAISE(ABORT, 'too many'); END";
        connection.execute_batch(rule).unwrap();
        let cart = put("shop/one/live/cart/u", r#"{"items":[["7",2],["8",6]]}"#);
        assert_eq!(change(&connection, &cart).unwrap(), 1);
        let count = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table}");
            connection
                .query_row(&sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!((count("kv"), count("carts")), (1, 0));
    }

    #[test]
    fn what_lost_its_form_loses_its_row() {
        let order = r#"{"status":"paid","lines":[{"product":"1","quantity":2}]}"#;
        let key = "shop/one/live/order/u/5";
        assert_eq!(follows(&[put(key, order)]), "orders 1, order_lines 1");
        assert_eq!(
            follows(&[put(key, order), put(key, r#"{"status":"paid","lines":[5]}"#)]),
            ""
        );
        let payment = "pay/payment/p/record";
        let with_order = r#"{"status":"held","order":{"merchant":"m","amount":5}}"#;
        let changes = [put(payment, with_order), put(payment, r#"{"status":"failed"}"#)];
        assert_eq!(follows(&changes), "payments 1");
    }
}
