//! Kept answers in SQLite.
//! Invariant: as many old ones go as new ones come, so that the table stays as large as what is alive.

use bytes::Bytes;
use kvstore_client::wire::mirror::KeptAnswer;
use rusqlite::{Connection, OptionalExtension as _, params};
use service::time::now_ms;

use super::sqlite::signed;

/// The store may see the end of an answer later than this machine's clock does.
pub(super) const GRACE_MS: u64 = 60_000;
/// So that also what a burst left behind goes in time.
const GOING_PER_COMING: i64 = 2;

const PUT: &str = "INSERT OR REPLACE INTO answers (owner, key, revision, expires_ms, fingerprint, reply) \
                   VALUES (?, ?, ?, ?, ?, ?)";
const SWEEP: &str = "DELETE FROM answers WHERE rowid IN \
                     (SELECT rowid FROM answers WHERE expires_ms < ? ORDER BY expires_ms LIMIT ?)";
const GET: &str =
    "SELECT owner, key, revision, expires_ms, fingerprint, reply FROM answers WHERE owner = ? AND key = ?";
const ALL: &str = "SELECT owner, key, revision, expires_ms, fingerprint, reply FROM answers WHERE expires_ms >= ? \
                   ORDER BY owner, key";

pub(super) fn put<'a>(
    connection: &Connection,
    kept: impl Iterator<Item = &'a KeptAnswer>,
) -> anyhow::Result<()> {
    let mut statement = connection.prepare_cached(PUT)?;
    let mut count = 0;
    for answer in kept {
        statement.execute(params![
            answer.owner,
            answer.key,
            signed(answer.revision)?,
            signed(answer.expires_ms)?,
            answer.fingerprint.as_ref(),
            answer.reply.as_ref(),
        ])?;
        count += 1;
    }
    if count > 0 {
        let ended = signed(now_ms().saturating_sub(GRACE_MS))?;
        connection
            .prepare_cached(SWEEP)?
            .execute([ended, count * GOING_PER_COMING])?;
    }
    Ok(())
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeptAnswer> {
    let bytes = |index| -> rusqlite::Result<Bytes> { Ok(Bytes::from(row.get::<_, Vec<u8>>(index)?)) };
    Ok(KeptAnswer {
        owner: row.get(0)?,
        key: row.get(1)?,
        revision: row.get::<_, i64>(2)?.unsigned_abs(),
        expires_ms: row.get::<_, i64>(3)?.unsigned_abs(),
        left_ms: None,
        fingerprint: bytes(4)?,
        reply: bytes(5)?,
    })
}

pub(super) fn get(connection: &Connection, owner: &str, key: &str) -> anyhow::Result<Option<KeptAnswer>> {
    let mut statement = connection.prepare_cached(GET)?;
    Ok(statement.query_row([owner, key], read).optional()?)
}

/// Those that have not ended.
pub(super) fn all(connection: &Connection) -> anyhow::Result<Vec<KeptAnswer>> {
    let mut statement = connection.prepare_cached(ALL)?;
    let found = statement.query_map([signed(now_ms())?], read)?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}
