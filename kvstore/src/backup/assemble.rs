//! A backup out of keys that somebody else kept, such as a mirror, when no node is left to take one from.
//! Invariant: every key keeps its value, revisions and version, and what was answered under an idempotency key is
//! answered again; the history before is gone, which the backup says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};

use super::Progress;
use super::format::Head;
use super::make::{Source, write_to_file};
use super::work::Work;
use crate::command::{Record, Reply};
use crate::machine::draft::Effects;
use crate::machine::host::{Machine, MachineSettings};
use crate::machine::state::{self, Kept, KeptId, Lease, State};
use crate::raft::entry;

const ROWS_AT_ONCE: usize = 5000;
/// Of a lease that nobody knows any more. Who lives renews or asks anew; the rest goes soon.
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
    /// The lease as it was granted, if that is known; it begins anew.
    pub granted: Option<Granted>,
}

/// Writes the file; `rows` come in the order of their keys and are all there is at `revision`. Progress is told in
/// keys.
pub fn assemble(
    rows: impl Iterator<Item = anyhow::Result<KeptRow>>,
    answers: Vec<KeptAnswer>,
    (revision, keys): (u64, u64),
    to: &Path,
    progress: Progress<'_>,
) -> anyhow::Result<Head> {
    let work = Work::beside(to, "assembling")?;
    let machine = Machine::open(&work.path(), MachineSettings::OF_A_TOOL, Arc::default())
        .context("make an empty state")?;
    let mut filling = Filling {
        state: State {
            revision,
            compacted: revision,
            ..State::default()
        },
        leases: BTreeMap::new(),
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
    let done = filling.state.keys;
    filling.finish(&machine, answers)?;
    progress(done, keys);
    let source = Source::of(&machine, &work.path())?;
    write_to_file(source, to, &mut |_, _| ())
}

struct Filling {
    state: State,
    leases: BTreeMap<u64, Option<Granted>>,
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
            self.leases.insert(row.lease, row.granted);
        }
        self.page.push((row.key, record));
        Ok(())
    }

    fn write(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let page = std::mem::take(&mut self.page);
        machine.generation().db().load(&page).context("write the keys")
    }

    fn finish(mut self, machine: &Machine, answers: Vec<KeptAnswer>) -> anyhow::Result<()> {
        let mut effects = Effects::default();
        for (id, granted) in std::mem::take(&mut self.leases) {
            let (ttl_ms, owner) = granted.map_or_else(
                || (LEASE_TTL_MS, String::new()),
                |lease| (lease.ttl_ms, lease.owner),
            );
            let lease = Lease {
                ttl_ms,
                owner,
                renewals: 0,
                pin: None,
            };
            effects.leases.insert(id, Some(lease));
        }
        // One of a later revision would call a write done that is lost.
        let present = self.state.revision;
        for answer in answers.into_iter().filter(|answer| answer.revision <= present) {
            let (id, kept) = kept(answer)?;
            self.state.answers_bytes += kept.bytes(&id);
            effects
                .kept_expiry
                .insert((kept.expires_ms, id.clone()), Some(kept.bytes(&id)));
            effects.kept.insert(id, Some(kept));
        }
        // The log of the new cluster begins behind this entry, which nobody has.
        let applied = serde_json::to_vec(&entry::log_id(1, 1, 1))?;
        let db = machine.generation();
        db.db()
            .write(&effects, &self.state, &applied, None)
            .context("write the counters")
    }
}

pub(super) fn kept(answer: KeptAnswer) -> anyhow::Result<(KeptId, Kept)> {
    let told: Reply = postcard::from_bytes(&answer.reply).context("read a kept answer")?;
    ensure!(
        told.revision == answer.revision,
        "a kept answer tells of another revision than it is filed under"
    );
    let fingerprint = answer.fingerprint.as_ref().try_into();
    let kept = Kept {
        fingerprint: fingerprint.context("a kept answer has no sound fingerprint")?,
        expires_ms: answer.expires_ms,
        reply: answer.reply,
    };
    let id = KeptId {
        owner: answer.owner,
        key: answer.key,
    };
    Ok((id, kept))
}
