//! The tables of the copy in SQLite, made or brought up to date, and which revision of which cluster they are.
//! Invariant: a copy always says what it is a copy of.

use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _};

use super::{Head, new_incarnation, sql, tables};

/// Stands in a copy that an earlier version began.
const LACKS_ASIDE: &str = "lacks_aside";

pub(super) fn make(connection: &Connection) -> anyhow::Result<()> {
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {}", sql::schema()))?;
    let head = Head {
        incarnation: new_incarnation(),
        ..Head::default()
    };
    put_head(connection, &head)?;
    connection.pragma_update(None, "user_version", sql::VERSION)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// Tables of before version 3 had rows that their keys no longer made.
pub(super) fn change_over(connection: &Connection, version: i64) -> anyhow::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    if version == 1 {
        connection.execute_batch(&sql::from_version_1())?;
        connection.execute("INSERT INTO meta (name, value) VALUES (?, '1')", [LACKS_ASIDE])?;
    }
    tables::make_anew(connection)?;
    connection.pragma_update(None, "user_version", sql::VERSION)?;
    Ok(connection.execute_batch("COMMIT")?)
}

pub(super) fn head(connection: &Connection) -> anyhow::Result<Head> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?")?;
    let mut text = |name: &str| -> anyhow::Result<String> {
        let value: Option<String> = statement.query_row([name], |row| row.get(0)).optional()?;
        value.with_context(|| format!("the copy does not say its {name}"))
    };
    let lacks_aside = connection
        .prepare_cached("SELECT 1 FROM meta WHERE name = ?")?
        .exists([LACKS_ASIDE])?;
    Ok(Head {
        lacks_aside,
        revision: text("revision")?.parse().context("read the copy's revision")?,
        cluster: text("cluster")?,
        incarnation: text("incarnation")?,
    })
}

/// Everything was read anew, with what lies beside the keys.
pub(super) fn has_aside(connection: &Connection) -> anyhow::Result<()> {
    connection.execute("DELETE FROM meta WHERE name = ?", [LACKS_ASIDE])?;
    Ok(())
}

pub(super) fn put_head(connection: &Connection, head: &Head) -> anyhow::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute(["revision", &head.revision.to_string()])?;
    statement.execute(["cluster", &head.cluster])?;
    statement.execute(["incarnation", &head.incarnation])?;
    Ok(())
}
