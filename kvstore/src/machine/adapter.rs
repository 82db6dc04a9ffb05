//! The state machine as openraft sees it.
//!
//! Applying runs on a thread of its own: neither a database that stalls nor a command that walks over all that
//! is stored may hold up heartbeats. Only little work after a quick batch is done in place, since changing
//! threads twice would take longer than it. An entry is applied only when this node's own disk has it, so that
//! nothing applied is ahead of the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::{mpsc, oneshot, watch};

use super::host::{Content, Item, Lead, Machine};
use super::snapshot;
use crate::command::{MalformedProposal, Reply};
use crate::raft::entry::log_id_parts;
use crate::raft::types::{
    Entry, LogId, Replies, Snapshot, SnapshotFolder, SnapshotMeta, StoredMembership, TypeConfig,
};
use crate::storage::closing::Joined;
use crate::storage::machine_db::{MachineDb, MachineMemory, TABLES_OF_STATE};

/// Entries and bytes of one atomic batch.
const BATCH_ENTRIES_MAX: usize = 4096;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What is applied in place takes well under a millisecond.
const IN_PLACE_ENTRIES_MAX: usize = 8;
const IN_PLACE_BYTES_MAX: usize = 16 << 10;
const QUICK: Duration = Duration::from_millis(3);

/// What the first of some entries were answered, and the other ones.
type Applied = (Vec<Vec<Reply>>, IntoIter<Item>);
type Job = (IntoIter<Item>, oneshot::Sender<anyhow::Result<Applied>>);

pub struct MachineAdapter {
    machine: Arc<Machine>,
    jobs: mpsc::Sender<Job>,
    flushed: watch::Receiver<u64>,
    /// Whether the last batch was applied quickly: a database that begins to stall is noticed once.
    quick: bool,
    /// After `jobs`, whose end ends it.
    _thread: Joined,
}

fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

pub(crate) fn applied_of(db: &MachineDb) -> Option<LogId> {
    db.applied().map(|bytes| {
        serde_json::from_slice(&bytes).expect("a stored log id decodes, or the database is damaged")
    })
}

pub(crate) fn membership_of(db: &MachineDb) -> StoredMembership {
    let stored = db.membership();
    stored.map_or_else(StoredMembership::default, |bytes| {
        serde_json::from_slice(&bytes).expect("a stored membership decodes, or the database is damaged")
    })
}

/// Index after the last entry that the database has seen.
pub(crate) fn applied_end(db: &MachineDb) -> u64 {
    applied_of(db).map_or(0, |id| id.index + 1)
}

impl MachineAdapter {
    /// Starts the apply thread; it ends when the adapter is dropped.
    pub fn start(machine: Arc<Machine>, flushed: watch::Receiver<u64>) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(1);
        let applying = Arc::clone(&machine);
        let thread = Joined::spawn("apply", move || {
            while let Some((mut items, done)) = queue.blocking_recv() {
                let replies = applying.apply_some(&mut items);
                // The asker is gone only when the node is stopping.
                done.send(replies.map(|replies| (replies, items))).ok();
            }
        })?;
        Ok(Self {
            machine,
            jobs,
            flushed,
            quick: true,
            _thread: thread,
        })
    }

    async fn on_thread(&self, items: IntoIter<Item>) -> io::Result<Applied> {
        let (done, applied) = oneshot::channel();
        let sent = self.jobs.send((items, done)).await;
        sent.map_err(|_closed| io_error("the apply thread has ended"))?;
        applied.await.map_err(io_error)?.map_err(io_error)
    }

    async fn run(&mut self, mut batch: Batch) -> io::Result<()> {
        let Some(last) = batch.items.last().map(|item| item.index) else {
            return Ok(());
        };
        self.flushed.wait_for(|end| *end > last).await.map_err(io_error)?;
        let mut in_place = self.quick && batch.is_little_work().map_err(io_error)?;
        let (mut items, mut responders) = (batch.items.into_iter(), batch.responders.into_iter());
        while !items.as_slice().is_empty() {
            let started = Instant::now();
            let replies;
            if in_place {
                replies = self.machine.apply_some(&mut items).map_err(io_error)?;
            } else {
                (replies, items) = self.on_thread(items).await?;
            }
            self.quick = started.elapsed() < QUICK;
            in_place &= self.quick;
            // What is answered goes before more is applied, since the answers may be large.
            for (replies, responder) in replies.into_iter().zip(responders.by_ref()) {
                if let Some(responder) = responder {
                    responder.send(Replies(replies));
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    responders: Vec<Option<ApplyResponder<TypeConfig>>>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() >= BATCH_ENTRIES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// A short entry need not be little work, so the commands are looked at too; who applies them finds them decoded.
    fn is_little_work(&mut self) -> Result<bool, MalformedProposal> {
        if self.items.len() > IN_PLACE_ENTRIES_MAX || self.bytes > IN_PLACE_BYTES_MAX {
            return Ok(false);
        }
        for item in &mut self.items {
            if let Content::Proposal(commands) = &mut item.content
                && !commands.are_little_work()?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn push(&mut self, (entry, responder): EntryResponder<TypeConfig>) -> io::Result<()> {
        if let EntryPayload::Normal(proposal) = &entry.payload {
            self.bytes += proposal.0.len();
        }
        self.items.push(Item {
            awaited: responder.is_some(),
            ..item_of(entry)?
        });
        self.responders.push(responder);
        Ok(())
    }
}

/// An entry as the machine sees it. Nobody waits for what it is answered.
pub(crate) fn item_of(entry: Entry) -> io::Result<Item> {
    let log_id = entry.log_id();
    let content = match entry.payload {
        EntryPayload::Blank => {
            let (term, node, _) = log_id_parts(&log_id);
            let lead = Lead { term, node };
            Content::Nothing { lead }
        }
        EntryPayload::Normal(proposal) => Content::Proposal(proposal.into()),
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(log_id), membership);
            Content::Membership(serde_json::to_vec(&stored)?)
        }
    };
    Ok(Item {
        index: log_id.index,
        id: serde_json::to_vec(&log_id)?,
        content,
        awaited: false,
    })
}

impl RaftStateMachine<TypeConfig> for MachineAdapter {
    type SnapshotData = SnapshotFolder;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let generation = self.machine.generation();
        Ok((applied_of(generation.db()), membership_of(generation.db())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut batch = Batch::default();
        while let Some(entry) = entries.next().await {
            batch.push(entry?)?;
            if batch.is_full() {
                self.run(std::mem::take(&mut batch)).await?;
            }
        }
        self.run(batch).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            machine: Arc::clone(&self.machine),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: SnapshotFolder) -> io::Result<()> {
        let (machine, meta) = (Arc::clone(&self.machine), meta.clone());
        let installing = tokio::task::spawn_blocking(move || machine.install_received(meta, &data));
        installing.await.map_err(io_error)?.map_err(io_error)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.machine.snapshots.current();
        Ok(current.map(|(meta, path)| Snapshot {
            meta,
            snapshot: SnapshotFolder(path),
        }))
    }
}

impl Machine {
    /// Where the network puts a snapshot while it arrives.
    pub fn incoming_folder(&self) -> std::path::PathBuf {
        self.generations.incoming()
    }

    /// The last entry that this node's snapshot holds.
    pub fn snapshot_end(&self) -> Option<LogId> {
        self.snapshots.current()?.0.last_log_id
    }

    /// Installs a snapshot that another member has sent and that was kept, but not installed any more, as Raft does when
    /// it starts.
    pub(crate) fn finish_install(&self) -> anyhow::Result<()> {
        match self.snapshots.current() {
            Some((meta, path)) if meta.last_log_id > applied_of(self.generation().db()) => {
                self.install_received(meta, &SnapshotFolder(path))
            }
            _ => Ok(()),
        }
    }

    fn install_received(&self, meta: SnapshotMeta, data: &SnapshotFolder) -> anyhow::Result<()> {
        let current = self.snapshots.current();
        let manifest = snapshot::read_manifest(&data.0)?;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        // A copy of its own first: the snapshot must outlive the database that grows out of these files.
        let known = current.is_some_and(|(known, _)| known.last_log_id == meta.last_log_id);
        if !known {
            let beside = self.snapshots.beside(index)?;
            snapshot::link_files(&manifest, &data.0, &beside)?;
            let generation = self.generation().number + 1;
            // Raft waits meanwhile and cannot even vote, so no file is read again: it was compared and synced before
            // the manifest was written. Who reads it next finds what has changed since.
            let files = manifest.files.clone();
            self.snapshots
                .adopt_described(&beside, meta.clone(), files, generation)?;
        }
        let received = if data.0 == self.generations.incoming() {
            data.0.clone()
        } else {
            let incoming = self.generations.incoming();
            crate::storage::files::remove_folder(&incoming)?;
            snapshot::link_files(&manifest, &data.0, &incoming)?;
            incoming
        };
        crate::storage::files::remove_file(&received.join(snapshot::MANIFEST))?;
        self.install(&received)?;
        self.metrics.snapshots.with_label_values(&["installed"]).inc();
        tracing::info!(raft.index = index, "a snapshot from another member was installed");
        Ok(())
    }

    fn build_snapshot(&self) -> anyhow::Result<(SnapshotMeta, std::path::PathBuf)> {
        let beside = self.snapshots.beside(u64::MAX)?;
        let applied_bytes = self.applied_bytes.load(Ordering::Relaxed);
        let generation = self.generation();
        generation.db().checkpoint(&beside)?;
        let meta = {
            let memory = MachineMemory {
                memtable_bytes: 1 << 20,
                cache_bytes: 1 << 20,
                records: 0,
            };
            let db = MachineDb::open_read_only(&beside, memory, Arc::clone(&self.damage))?;
            SnapshotMeta {
                last_log_id: applied_of(&db),
                last_membership: membership_of(&db),
            }
        };
        let files = self.snapshots.describe_next(&beside, generation.number)?;
        if let Some(name) = snapshot::changed_table(&files, &self.snapshots.present_files(generation.number))
        {
            // Handed on, it would damage whoever installs it.
            let error = format!("{name} is no longer what it was");
            self.damage.report_corruption(TABLES_OF_STATE, &error);
            anyhow::bail!("a table is damaged: {error}");
        }
        let adopted = self
            .snapshots
            .adopt_described(&beside, meta, files, generation.number)?;
        self.snapshot_bytes.store(applied_bytes, Ordering::Relaxed);
        self.metrics.snapshots.with_label_values(&["built"]).inc();
        Ok(adopted)
    }
}

pub struct SnapshotBuilder {
    machine: Arc<Machine>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFolder;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let machine = Arc::clone(&self.machine);
        let building = tokio::task::spawn_blocking(move || machine.build_snapshot());
        let (meta, path) = building.await.map_err(io_error)?.map_err(io_error)?;
        Ok(Snapshot {
            meta,
            snapshot: SnapshotFolder(path),
        })
    }
}

#[cfg(test)]
mod tests;
