//! Whether the log that is opened is whole, and what it holds.

use std::io;

use super::{end_of, io_error};
use crate::raft::entry;
use crate::raft::types::LogId;
use crate::storage::log_db::{LogBatch, LogDb};

/// What a log that has no gaps was found to hold.
pub(super) struct Checked {
    pub(super) end: u64,
    /// Of the entries that no snapshot stands for, and of those before.
    pub(super) bytes: u64,
    pub(super) bytes_covered: u64,
}

/// What a snapshot holds is not needed in the log, so a gap there is no damage: the log from before it is dropped.
/// A gap that no snapshot covers is.
pub(super) fn drop_what_the_snapshot_covers(
    db: &LogDb,
    snapshot: Option<LogId>,
    gap: io::Error,
) -> io::Result<(Option<LogId>, Checked)> {
    let Some(snapshot) = snapshot else { return Err(gap) };
    let snapshot_end = end_of(Some(&snapshot));
    // Whatever the gap is, nothing after the snapshot may be missing.
    let Ok(checked) = check_contiguity(db, snapshot_end, snapshot_end) else {
        return Err(gap);
    };
    drop_up_to(db, &snapshot)?;
    tracing::info!(
        raft.index = snapshot.index,
        "the log has a gap, but the snapshot covers it: what is before is dropped"
    );
    let end = checked.end.max(snapshot_end);
    Ok((Some(snapshot), Checked { end, ..checked }))
}

/// Finishes the purge that an installed snapshot asks for, where the process ended between the two. Raft does so
/// itself, but compares terms before indexes: what is left may be of a later term than the snapshot, from a leader whose
/// entries were never committed. It would stay, and what comes after the snapshot could not be appended to it.
pub(super) fn begin_behind_the_snapshot(
    db: &LogDb,
    snapshot: Option<LogId>,
    (purged, checked): (Option<LogId>, Checked),
) -> io::Result<(Option<LogId>, Checked)> {
    let end = end_of(snapshot.as_ref());
    let Some(snapshot) = snapshot.filter(|_| end > checked.end) else {
        return Ok((purged, checked));
    };
    drop_up_to(db, &snapshot)?;
    tracing::info!(
        raft.index = snapshot.index,
        "the snapshot goes on behind the end of the log: what is before is dropped"
    );
    Ok((Some(snapshot), Checked { end, ..checked }))
}

fn drop_up_to(db: &LogDb, last: &LogId) -> io::Result<()> {
    let mut batch = LogBatch::default();
    db.put_meta(&mut batch, "purged", &serde_json::to_vec(last)?);
    db.remove(&mut batch, 0, end_of(Some(last)));
    db.commit(batch).map_err(io_error)
}

/// An entry missing in the middle is damage that no vote and no replay may be built on. A snapshot stands for what is
/// before `covered`.
pub(super) fn check_contiguity(db: &LogDb, purged_end: u64, covered: u64) -> io::Result<Checked> {
    let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let end = db.last().map_err(io_error)?.map_or(0, |(last, _)| last + 1);
    let (mut expected, mut before, mut behind) = (purged_end, 0, 0);
    while expected < end {
        let chunk = db.entries(expected, end, 8 << 20).map_err(io_error)?;
        for (index, bytes) in &chunk {
            if *index != expected {
                return Err(damaged(format!(
                    "the log has no entry {expected} but has {index}: it is damaged"
                )));
            }
            entry::decode(bytes).map_err(io_error)?;
            let counted = if *index < covered {
                &mut before
            } else {
                &mut behind
            };
            *counted += bytes.len() as u64;
            expected += 1;
        }
        if chunk.is_empty() {
            return Err(damaged(format!(
                "the log has no entry {expected} but ends at {end}: it is damaged"
            )));
        }
    }
    Ok(Checked {
        end: expected,
        bytes: behind,
        bytes_covered: before,
    })
}
