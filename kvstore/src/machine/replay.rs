//! What the log of a node that has stopped leads to, to be held beside the state that the node has: its newest snapshot,
//! and behind it each entry that it has applied, once more and by the same code.
//! Invariant: no entry is left out, and the node's folder is only read. A node always has what this takes, a whole log or
//! the snapshot that the log goes on from, but for the moment in which a damaged log has begun anew behind the state
//! and the snapshot that closes this gap is not yet made.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use super::adapter::{applied_end, item_of};
use super::host::{Item, Machine, MachineSettings};
use super::snapshot::{Manifest, newest_in};
use crate::raft::entry;
use crate::raft::log::purged_of;
use crate::raft::types::LogId;
use crate::storage::alike::StoppedState;
use crate::storage::log_db::LogDb;
use crate::storage::rows::databases_in;

const READ_BYTES: usize = 8 << 20;

pub struct Replay {
    log: PathBuf,
    /// The snapshot that it begins from, or else nothing.
    base: Option<(Manifest, PathBuf)>,
    entries: Range<u64>,
}

impl Replay {
    /// Of the node whose folder this is.
    pub fn of(node: &Path) -> anyhow::Result<Self> {
        let [log, state] = databases_in(node)?;
        let applied = StoppedState::open(&state).context("open the state")?;
        let applied = match applied.applied() {
            "" => None,
            id => Some(serde_json::from_str(id).context("read which entry was applied last")?),
        };
        let base = newest_in(&node.join("snapshots")).context("look for a snapshot")?;
        let begin = end_of(base.as_ref().and_then(|(manifest, _)| manifest.meta.last_log_id));
        let end = end_of(applied);
        ensure!(
            begin <= end,
            "the snapshot holds {begin} entries and the state only {end}: it was received and never installed"
        );
        let entries = begin..end;
        Ok(Self { log, base, entries })
    }

    /// How many entries there are to be replayed.
    pub fn entries(&self) -> u64 {
        self.entries.end - self.entries.start
    }

    /// The state that the log leads to, in this folder, which is to be empty.
    pub fn carry_out(&self, scratch: &Path) -> anyhow::Result<StoppedState> {
        let state = scratch.join("sm").join("1");
        fs::create_dir_all(&state).context("make a folder for the state")?;
        if let Some((manifest, snapshot)) = &self.base {
            for file in &manifest.files {
                fs::copy(snapshot.join(&file.name), state.join(&file.name)).context("copy the snapshot")?;
            }
        }
        let machine = Machine::open(scratch, MachineSettings::OF_A_TOOL, Arc::default());
        let machine = machine.context("open a state to replay the log")?;
        let (begin, held) = (self.entries.start, applied_end(machine.generation().db()));
        ensure!(
            held == begin,
            "the snapshot holds {held} entries and says that it holds {begin}"
        );
        if !self.entries.is_empty() {
            self.apply(&machine)?;
        }
        machine.generation().db().flush().context("flush the state")?;
        drop(machine);
        StoppedState::open(&state).context("open what the log leads to")
    }

    fn apply(&self, machine: &Machine) -> anyhow::Result<()> {
        let log = LogDb::open_read_only(&self.log).context("open the log")?;
        let reached = each_batch(&log, self.entries.clone(), |items| {
            machine.apply(items).map(drop).context("apply the log")
        })?;
        ensure!(
            reached == self.entries.end,
            "neither a snapshot nor the log has entry {reached}, which the state has applied"
        );
        Ok(())
    }
}

/// Hands on these entries, as far as the log goes, and refuses to leave one out. Answers where they end.
pub(crate) fn each_batch(
    log: &LogDb,
    entries: Range<u64>,
    mut take: impl FnMut(Vec<Item>) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut from = entries.start;
    // What is before was given up, even where it is on the disk still.
    let begin = end_of(purged_of(log).context("read where the log begins")?);
    loop {
        let found = log.entries(from.max(begin), entries.end, READ_BYTES)?;
        let Some((first, _)) = found.first() else {
            return Ok(from);
        };
        if from == entries.start && *first != from {
            bail!("the log begins at {first}, but what it is to go on from ends before {from}");
        }
        let mut items = Vec::with_capacity(found.len());
        for (expected, (index, bytes)) in (from..).zip(found) {
            ensure!(
                index == expected,
                "the log has no entry {expected}: it is damaged"
            );
            items.push(item_of(entry::decode(&bytes)?)?);
        }
        from += items.len() as u64;
        take(items)?;
    }
}

fn end_of(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests;
