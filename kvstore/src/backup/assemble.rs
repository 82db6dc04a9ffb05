//! A backup out of keys that somebody else kept, such as a mirror, when no node is left to take one from.
//! Invariant: every key keeps its value, revisions and version; the history before is gone, which the backup says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use super::Progress;
use super::format::Head;
use super::make::{Source, write_to_file};
use crate::command::Record;
use crate::machine::draft::Effects;
use crate::machine::host::{Machine, MachineSettings};
use crate::machine::state::{self, Lease, State};
use crate::raft::entry;
use crate::storage::files;

const ROWS_AT_ONCE: usize = 5000;
/// Whose time ran nobody knows any more. Who lives renews or asks anew; the rest goes soon.
const LEASE_TTL_MS: u64 = 10_000;

/// One key, as it is to be again.
#[derive(Clone, Debug)]
pub struct KeptRow {
    pub key: Bytes,
    pub value: Bytes,
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub lease: u64,
}

/// A folder that goes in the end.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = files::remove_folder(&self.0) {
            tracing::warn!(%error, "a folder made for assembling a backup could not be removed");
        }
    }
}

/// Writes the file; `rows` come in the order of their keys and are all there is at `revision`. Progress is told in
/// keys.
pub fn assemble(
    rows: impl Iterator<Item = anyhow::Result<KeptRow>>,
    (revision, keys): (u64, u64),
    to: &Path,
    progress: Progress<'_>,
) -> anyhow::Result<Head> {
    let work = Work(to.with_extension("assembling"));
    files::remove_folder(&work.0)?;
    let settings = MachineSettings {
        memtable_bytes: 8 << 20,
        cache_bytes: 8 << 20,
        ring_bytes: 1 << 20,
        heads_bytes: 1 << 20,
    };
    let machine = Machine::open(&work.0, settings, Arc::default()).context("make an empty state")?;
    let mut filling = Filling {
        state: State {
            revision,
            compacted: revision,
            ..State::default()
        },
        leases: BTreeSet::new(),
        last_key: None,
        page: Vec::new(),
    };
    for row in rows {
        filling.push(row?)?;
        if filling.page.len() >= ROWS_AT_ONCE {
            filling.write(&machine)?;
            progress(filling.state.keys, keys);
        }
    }
    filling.write(&machine)?;
    filling.finish(&machine)?;
    progress(filling.state.keys, keys);
    let source = Source::of(&machine, &work.0)?;
    write_to_file(source, to, &mut |_, _| ())
}

struct Filling {
    state: State,
    leases: BTreeSet<u64>,
    last_key: Option<Bytes>,
    page: Vec<(Bytes, Record)>,
}

impl Filling {
    fn push(&mut self, row: KeptRow) -> anyhow::Result<()> {
        ensure!(
            self.last_key.as_ref().is_none_or(|last| *last < row.key),
            "the keys are not in order, or one is there twice"
        );
        ensure!(
            row.version > 0 && row.created <= row.modified && row.modified <= self.state.revision,
            "a key has revisions that do not agree with each other"
        );
        self.last_key = Some(row.key.clone());
        let record = Record {
            created: row.created,
            modified: row.modified,
            version: row.version,
            lease: row.lease,
            value: row.value,
        };
        let hash = state::record_hash(&row.key, &record);
        self.state.hash = self.state.hash.wrapping_add(hash);
        self.state.keys += 1;
        if row.lease != 0 {
            self.leases.insert(row.lease);
        }
        self.page.push((row.key, record));
        Ok(())
    }

    fn write(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let page = std::mem::take(&mut self.page);
        machine.generation().db().load(&page).context("write the keys")
    }

    fn finish(&self, machine: &Machine) -> anyhow::Result<()> {
        let mut effects = Effects::default();
        for id in &self.leases {
            let lease = Lease {
                ttl_ms: LEASE_TTL_MS,
                owner: String::new(),
                renewals: 0,
                pin: None,
            };
            effects.leases.insert(*id, Some(lease));
        }
        // The log of the new cluster begins behind this entry, which nobody has.
        let applied = serde_json::to_vec(&entry::log_id(1, 1, 1))?;
        let db = machine.generation();
        db.db()
            .write(&effects, &self.state, &applied, None)
            .context("write the counters")
    }
}
