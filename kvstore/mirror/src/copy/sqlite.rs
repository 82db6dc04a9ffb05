//! The copy in SQLite: a file that any SQLite program may read while it is written.
//! Invariant: rows and the revision they belong to change in one transaction. With WAL readers see the last one that
//! was committed; with synchronous=FULL a commit is on the disk when it returns.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Rows, params, params_from_iter};
use serde_json::Value;
use service::config::MirrorMode;

use super::head::{change_over, has_aside, head, make, put_head};
use super::room::Room;
use super::{
    Head, Record, answers, aside, new_incarnation, private_file, sql, sync_file, sync_folder, tables,
};
use crate::row::{Batch, Change, Row};
use crate::shape::{Cell, TABLES, Table};

pub(super) const FILE: &str = "mirror.db";
pub(super) const WAL: &str = "mirror.db-wal";
/// Somebody's own program may hold a lock for a moment.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Pages of the WAL before they are moved into the file.
const CHECKPOINT_PAGES: u32 = 4000;
/// A group of revisions may make the WAL larger for a while.
const WAL_BYTES_MAX: u32 = 32 << 20;
const STATEMENTS_CACHED: usize = 64;
/// As many as may read at the same time over HTTP.
const READERS_KEPT: usize = 6;

const ROW: &str =
    "SELECT key, value, create_revision, mod_revision, version, lease, lease_ttl_ms, lease_owner FROM kv";

pub(crate) struct Writer {
    pub(super) head: Head,
    connection: Connection,
    room: Room,
}

pub(crate) struct Reader {
    folder: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

pub(crate) struct View {
    pub(super) head: Head,
    connection: Connection,
}

pub(super) fn is_there(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

pub(super) fn open(folder: &Path, mode: MirrorMode, free_bytes_min: u64) -> anyhow::Result<(Writer, Reader)> {
    let path = folder.join(FILE);
    // Made before SQLite makes it, which would let everybody read it; its other files take its mode over.
    private_file()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    // Before SQLite opens them: the locks of a process end when it closes any handle of the file.
    sync_file(&path)?;
    sync_file(&folder.join(WAL))?;
    sync_folder(folder)?;
    let connection = Connection::open(&path).with_context(|| format!("open {}", path.display()))?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match mode {
        MirrorMode::Sync => "FULL",
        MirrorMode::Async => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
    connection.pragma_update(None, "cache_size", -32_768)?;
    let version = user_version(&connection)?;
    match version {
        sql::VERSION => {}
        0 => make(&connection).context("make the tables")?,
        1..sql::VERSION => change_over(&connection, version).context("bring earlier tables up to date")?,
        _ => anyhow::bail!(
            "{} was made by a later version of this program; move it away, and it is made anew",
            path.display()
        ),
    }
    let head = head(&connection)?;
    let mut room = Room::of(folder, free_bytes_min);
    // Who was killed while the copy was made anew left a WAL of its size.
    room.cut_log(&connection);
    let writer = Writer {
        head,
        connection,
        room,
    };
    Ok((writer, Reader::of(folder)?))
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Revisions stay far below what SQLite's integers hold.
pub(super) fn signed(number: u64) -> anyhow::Result<i64> {
    i64::try_from(number).context("a number of the store is larger than SQLite's integers")
}

impl Writer {
    pub(super) fn apply(&mut self, batches: &[Batch]) -> anyhow::Result<u64> {
        let Some(last) = batches.last() else { return Ok(0) };
        let head = Head {
            revision: last.revision,
            ..self.head.clone()
        };
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let written = self.write(batches, &head);
        let shapeless = self.finish(written)?;
        self.head = head;
        Ok(shapeless)
    }

    fn write(&self, batches: &[Batch], head: &Head) -> anyhow::Result<u64> {
        let mut shapeless = 0;
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            shapeless += tables::change(&self.connection, change)?;
        }
        answers::put(
            &self.connection,
            batches.iter().filter_map(|batch| batch.kept.as_ref()),
        )?;
        put_head(&self.connection, head)?;
        Ok(shapeless)
    }

    /// Commits, or leaves nothing behind.
    fn finish<T>(&self, written: anyhow::Result<T>) -> anyhow::Result<T> {
        let committed = written.and_then(|value| {
            self.connection.execute_batch("COMMIT").context("commit")?;
            Ok(value)
        });
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    fn roll_back(&self) {
        // SQLite has already done so after some errors, and then says that there is no transaction.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }

    pub(super) fn begin_rebuild(&mut self) -> anyhow::Result<()> {
        self.room.may_begin().context("make the copy anew")?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let names = TABLES.iter().map(|table| table.name).chain(["kv", "answers"]);
        let deletes: Vec<String> = names.map(|name| format!("DELETE FROM \"{name}\"")).collect();
        let deleted = self.connection.execute_batch(&deletes.join("; "));
        deleted
            .inspect_err(|_| self.roll_back())
            .context("empty the tables")
    }

    pub(super) fn rebuild_rows(&mut self, rows: Vec<Row>) -> anyhow::Result<u64> {
        let mut shapeless = 0;
        for row in rows {
            shapeless += tables::change(&self.connection, &Change::Put(row))?;
        }
        self.room
            .may_go_on(&self.connection)
            .context("make the copy anew")?;
        Ok(shapeless)
    }

    pub(super) fn rebuild_answers(&mut self, kept: &[KeptAnswer]) -> anyhow::Result<()> {
        answers::put(&self.connection, kept.iter())?;
        self.room
            .may_go_on(&self.connection)
            .context("make the copy anew")
    }

    pub(super) fn end_rebuild(&mut self, revision: u64, cluster: &str) -> anyhow::Result<()> {
        let head = Head {
            revision,
            cluster: cluster.to_owned(),
            incarnation: self.head.incarnation.clone(),
            lacks_aside: false,
        };
        let put = put_head(&self.connection, &head).and_then(|()| has_aside(&self.connection));
        self.finish(put)?;
        self.head = head;
        self.room.was_enough(&self.connection);
        Ok(())
    }

    pub(super) fn abort_rebuild(&mut self) {
        self.room.remember(&self.connection);
        self.roll_back();
        self.room.cut_log(&self.connection);
    }

    pub(super) fn tidy(&mut self) {
        self.room.tidy(&self.connection);
    }

    /// The version of the tables is written also where it stays what it was.
    pub(super) fn try_to_write(&self) -> anyhow::Result<()> {
        let again = self.connection.pragma_update(None, "user_version", sql::VERSION);
        again.context("write the version of the tables")
    }

    pub(super) fn set_aside(&mut self) -> anyhow::Result<()> {
        aside::keep_database(&self.connection, &self.room, &self.head)?;
        self.head.incarnation = new_incarnation();
        Ok(())
    }
}

impl Reader {
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let reader = Self {
            folder: folder.to_owned(),
            idle: Mutex::default(),
        };
        let connection = reader.take()?;
        reader.give_back(connection);
        Ok(reader)
    }

    fn take(&self) -> anyhow::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let path = self.folder.join(FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .with_context(|| format!("open {} to read", path.display()))?;
        connection.busy_timeout(BUSY)?;
        // Whoever promotes it changes nothing in it, so it stays of the version that it is.
        if user_version(&connection)? == 1 {
            connection.execute_batch(sql::VIEWED_FROM_VERSION_1)?;
        }
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
    }

    fn with<T>(&self, read: impl FnOnce(&Connection) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let connection = self.take()?;
        let read = read(&connection)?;
        self.give_back(connection);
        Ok(read)
    }

    pub(super) fn select(&self, table: &'static Table, key: &[Cell]) -> anyhow::Result<Vec<Record>> {
        self.with(|connection| select(connection, table, key))
    }

    pub(super) fn get(&self, key: &str) -> anyhow::Result<Option<Row>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(&format!("{ROW} WHERE key = ?"))?;
            Ok(statement.query_row([key], row).optional()?)
        })
    }

    pub(super) fn under(&self, prefix: &str) -> anyhow::Result<Vec<Row>> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("{ROW} WHERE key >= ? AND key < ? ORDER BY key"))?;
            // No character is greater than this one.
            let end = format!("{prefix}{}", char::MAX);
            let found = statement.query_map([prefix, &end], row)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// A connection of its own, in a transaction that ends with it.
    pub(super) fn view(&self) -> anyhow::Result<View> {
        let connection = self.take()?;
        connection.execute_batch("BEGIN")?;
        let head = head(&connection)?;
        Ok(View { head, connection })
    }
}

impl View {
    pub(super) fn answers(&self) -> anyhow::Result<Vec<KeptAnswer>> {
        answers::all(&self.connection)
    }

    pub(super) fn answer(&self, owner: &str, key: &str) -> anyhow::Result<Option<KeptAnswer>> {
        answers::get(&self.connection, owner, key)
    }

    pub(super) fn count(&self) -> anyhow::Result<u64> {
        let count: i64 = self
            .connection
            .query_row("SELECT count(*) FROM kv", [], |row| row.get(0))?;
        Ok(u64::try_from(count)?)
    }

    pub(super) fn after(&self, key: Option<&str>, limit: usize) -> anyhow::Result<Vec<Row>> {
        // Every key is greater than the empty one, which none is.
        let sql = format!("{ROW} WHERE key > ? ORDER BY key LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found = statement.query_map(params![key.unwrap_or_default(), limit], row)?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    pub(super) fn select(&self, table: &'static Table, key: &[Cell]) -> anyhow::Result<Vec<Record>> {
        select(&self.connection, table, key)
    }

    pub(super) fn last(
        &self,
        table: &'static Table,
        key: &[Cell],
        before: Option<&Cell>,
        limit: usize,
    ) -> anyhow::Result<Vec<Record>> {
        last(&self.connection, table, key, before, limit)
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let number = |index| -> rusqlite::Result<u64> { Ok(row.get::<_, i64>(index)?.unsigned_abs()) };
    let lease = number(5)?;
    let granted = Granted {
        id: lease,
        ttl_ms: number(6)?,
        owner: row.get(7)?,
    };
    Ok(Row {
        key: row.get(0)?,
        // Somebody's own program may have put text there.
        value: Bytes::copy_from_slice(row.get_ref(1)?.as_bytes()?),
        created: number(2)?,
        modified: number(3)?,
        version: number(4)?,
        lease,
        granted: (granted.ttl_ms > 0).then_some(granted),
    })
}

pub(super) fn select(
    connection: &Connection,
    table: &'static Table,
    key: &[Cell],
) -> anyhow::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached(&sql::select(table, key.len()))?;
    records(table, statement.query(params_from_iter(key))?)
}

pub(super) fn last(
    connection: &Connection,
    table: &'static Table,
    key: &[Cell],
    before: Option<&Cell>,
    limit: usize,
) -> anyhow::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached(&sql::last(table, key.len(), before.is_some()))?;
    let limit = Cell::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
    let given = key.iter().chain(before).chain([&limit]);
    records(table, statement.query(params_from_iter(given))?)
}

fn records(table: &'static Table, mut rows: Rows<'_>) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let mut record = Record::new();
        for (index, (name, _)) in table.columns.iter().enumerate() {
            let value = match row.get_ref(index)? {
                ValueRef::Integer(number) => Value::from(number),
                ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
                _ => Value::Null,
            };
            record.insert((*name).to_owned(), value);
        }
        records.push(record);
    }
    Ok(records)
}
