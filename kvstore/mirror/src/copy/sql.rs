//! SQL texts of the tables.
//! Invariant: names come from the code alone, and stand in quotes; everything else is a parameter.

use std::fmt::Write as _;

use crate::shape::{Edit, Kind, TABLES, Table, What};

/// Raised when tables change, or what is in them.
pub(super) const VERSION: i64 = 3;

/// The answers kept for idempotency keys.
const ANSWERS: &str = "CREATE TABLE answers (owner TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, \
     expires_ms INTEGER NOT NULL, fingerprint BLOB NOT NULL, reply BLOB NOT NULL, PRIMARY KEY (owner, key));\n\
     CREATE INDEX answers_expires_ms ON answers (expires_ms);\n";

/// What makes a copy of version 1 one of version 2. Leases and answers come when it is made anew.
pub(super) fn from_version_1() -> String {
    format!(
        "ALTER TABLE kv ADD COLUMN lease_ttl_ms INTEGER NOT NULL DEFAULT 0;\n\
         ALTER TABLE kv ADD COLUMN lease_owner TEXT NOT NULL DEFAULT '';\n{ANSWERS}"
    )
}

/// Shows a copy of version 1, to who only reads it, as one of now that has no leases and no answers. What is temporary
/// goes before what is in the file.
pub(super) const VIEWED_FROM_VERSION_1: &str = "CREATE TEMP VIEW kv AS \
     SELECT *, 0 AS lease_ttl_ms, '' AS lease_owner FROM main.kv;\n\
     CREATE TEMP TABLE answers (owner TEXT, key TEXT, revision INTEGER, expires_ms INTEGER, \
     fingerprint BLOB, reply BLOB);";

pub(super) fn schema() -> String {
    let mut sql = String::from(
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;\n\
         CREATE TABLE IF NOT EXISTS kv (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, create_revision INTEGER \
         NOT NULL, mod_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, \
         lease_ttl_ms INTEGER NOT NULL DEFAULT 0, lease_owner TEXT NOT NULL DEFAULT '');\n",
    );
    sql.push_str(ANSWERS);
    for table in TABLES {
        let columns = table.columns.iter().enumerate().map(|(number, (name, kind))| {
            let kind = match kind {
                Kind::Text => "TEXT",
                Kind::Integer => "INTEGER",
            };
            let needed = if number < table.key_columns {
                " NOT NULL"
            } else {
                ""
            };
            format!("\"{name}\" {kind}{needed}")
        });
        let columns: Vec<String> = columns.collect();
        let keys = quoted(table.key_names());
        let name = table.name;
        let columns = columns.join(", ");
        line(
            &mut sql,
            format_args!("CREATE TABLE IF NOT EXISTS \"{name}\" ({columns}, PRIMARY KEY ({keys}));"),
        );
        for index in table.indexes {
            let (of, columns) = (index.join("_"), quoted(index.iter().copied()));
            line(
                &mut sql,
                format_args!("CREATE INDEX IF NOT EXISTS \"{name}_{of}\" ON \"{name}\" ({columns});"),
            );
        }
    }
    sql
}

fn line(sql: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(sql, "{text}").expect("writing to memory does not fail");
}

fn quoted(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}

/// The first so many columns of the key, each equal to a parameter.
fn by_key(table: &Table, count: usize) -> String {
    let names = table.key_names().take(count);
    let equal: Vec<String> = names.map(|name| format!("\"{name}\" = ?")).collect();
    equal.join(" AND ")
}

/// Removes the row of this key if it has nothing else. The parameters are the key.
pub(super) fn remove_empty(table: &Table) -> String {
    let rest = table.columns[table.key_columns..].iter();
    let nulls: Vec<String> = rest.map(|(name, _)| format!("\"{name}\" IS NULL")).collect();
    let of = by_key(table, table.key_columns);
    format!(
        "DELETE FROM \"{}\" WHERE {of} AND {}",
        table.name,
        nulls.join(" AND ")
    )
}

/// The parameters are the key, and for what is set the cells after it.
pub(super) fn edit(edit: &Edit) -> String {
    let Edit { table, key, what } = edit;
    let name = table.name;
    match what {
        What::Remove => format!("DELETE FROM \"{name}\" WHERE {}", by_key(table, key.len())),
        What::Clear(columns) => {
            let nulls: Vec<String> = columns.iter().map(|name| format!("\"{name}\" = NULL")).collect();
            let (nulls, of) = (nulls.join(", "), by_key(table, key.len()));
            format!("UPDATE \"{name}\" SET {nulls} WHERE {of}")
        }
        What::Set(cells) => {
            let names = table.key_names().chain(cells.iter().map(|(name, _)| *name));
            let marks = vec!["?"; key.len() + cells.len()].join(", ");
            let updates = cells
                .iter()
                .map(|(name, _)| format!("\"{name}\" = excluded.\"{name}\""));
            let updates: Vec<String> = updates.collect();
            let (names, keys, updates) = (quoted(names), quoted(table.key_names()), updates.join(", "));
            format!(
                "INSERT INTO \"{name}\" ({names}) VALUES ({marks}) ON CONFLICT ({keys}) DO UPDATE SET {updates}"
            )
        }
    }
}

pub(super) fn select(table: &Table, key_cells: usize) -> String {
    let (all, keys) = (all_of(table), quoted(table.key_names()));
    let of = match key_cells {
        0 => String::new(),
        count => format!(" WHERE {}", by_key(table, count)),
    };
    format!("{all}{of} ORDER BY {keys}")
}

/// The parameters are the cells of the key, the next one where rows before that are wanted, and how many.
pub(super) fn last(table: &Table, key_cells: usize, before: bool) -> String {
    let (all, of) = (all_of(table), by_key(table, key_cells));
    let next = table.key_names().nth(key_cells);
    let next = next.map(|name| format!(" AND \"{name}\" < ?")).filter(|_| before);
    let keys: Vec<String> = table.key_names().map(|name| format!("\"{name}\" DESC")).collect();
    format!(
        "{all} WHERE {of}{} ORDER BY {} LIMIT ?",
        next.unwrap_or_default(),
        keys.join(", ")
    )
}

fn all_of(table: &Table) -> String {
    let columns = quoted(table.columns.iter().map(|(name, _)| *name));
    format!("SELECT {columns} FROM \"{}\"", table.name)
}
