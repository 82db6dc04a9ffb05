//! What is left of a cluster whose majority is lost for good, made into a backup.
//! Invariant: nothing of what the survivors hold is changed: the work is done on a copy.
//! The longest log is taken as it is. What was acknowledged is in the log of a majority; so it is all there if
//! enough of the members survive, and the end of it may be missing if not. Entries that were never acknowledged may
//! be taken along.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::Progress;
use super::copy::Copy;
use super::format::Head;
use super::make::{Source, write_to_file};
use crate::machine::adapter::{applied_end, applied_of, item_of, membership_of};
use crate::machine::host::Machine;
use crate::raft::entry::{self, log_id_parts};
use crate::raft::types::LogId;
use crate::storage::log_db::LogDb;

const READ_BYTES: usize = 8 << 20;

/// What one member's folder holds.
#[derive(Clone, Debug)]
pub struct Survivor {
    pub folder: PathBuf,
    /// The last entry of its log, or of its state where the log ends before it.
    pub last: LogId,
    pub applied: u64,
    /// Of the cluster, as this member knew it.
    pub voters: Vec<u64>,
}

impl Survivor {
    pub fn term(&self) -> u64 {
        log_id_parts(&self.last).0
    }

    pub fn index(&self) -> u64 {
        self.last.index
    }
}

/// Looks into the folder of a member that does not run.
pub fn inspect(folder: &Path) -> anyhow::Result<Survivor> {
    let work = Copy::of(folder)?;
    let (log, machine) = work.open()?;
    let survivor = Survivor {
        folder: folder.to_owned(),
        last: last_of(&log, &machine)?.context("nothing was ever written here")?,
        applied: applied_end(machine.generation().db()).saturating_sub(1),
        voters: membership_of(machine.generation().db()).voter_ids().collect(),
    };
    Ok(survivor)
}

/// Applies all that the member's log holds and writes a backup of that.
pub fn recover(from: &Survivor, to: &Path, progress: Progress<'_>) -> anyhow::Result<Head> {
    let work = Copy::of(&from.folder)?;
    let (log, machine) = work.open()?;
    apply_all(&log, &machine)?;
    let source = Source::of(&machine, &work.path())?;
    write_to_file(source, to, progress)
}

fn last_of(log: &LogDb, machine: &Machine) -> anyhow::Result<Option<LogId>> {
    let in_log = match log.last()? {
        Some((_, bytes)) => Some(entry::log_id_of(&entry::decode(&bytes)?)),
        None => None,
    };
    Ok(in_log.max(applied_of(machine.generation().db())))
}

fn apply_all(log: &LogDb, machine: &Machine) -> anyhow::Result<()> {
    loop {
        let from = applied_end(machine.generation().db());
        let entries = log.entries(from, u64::MAX, READ_BYTES)?;
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        if *first != from {
            bail!("the log begins at {first}, but the state ends before {from}: this member cannot be used");
        }
        let mut items = Vec::with_capacity(entries.len());
        for (expected, (index, bytes)) in (from..).zip(entries) {
            ensure!(
                index == expected,
                "the log has no entry {expected}: it is damaged"
            );
            items.push(item_of(entry::decode(&bytes)?)?);
        }
        machine.apply(items)?;
    }
}
