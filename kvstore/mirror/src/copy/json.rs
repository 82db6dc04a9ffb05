//! The copy in JSON: one document a collection, and a journal of what is not in the documents yet.
//! Invariant: the document `kv.json` names the journal that goes on from it, so that a crash between the two leaves
//! either the old pair or the new one. Documents are written beside, synced, and renamed: each is always whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kvstore_client::wire::mirror::KeptAnswer;
use serde::{Deserialize, Serialize};
use service::config::MirrorMode;
use service::time::now_ms;

use super::answers::GRACE_MS;
use super::document::write_beside;
use super::journal::{self, Entry, Journal, StoredRow, Written};
use super::{Head, Maps, Record, aside, new_incarnation, sync_folder};
use crate::row::{Batch, Change, Row};
use crate::shape::{self, Cell, Effect, Table};

const RAW: &str = "kv.json";
/// Documents are written after so long, or so many bytes of journal.
const EVERY: Duration = Duration::from_secs(1);
const JOURNAL_BYTES_MAX: u64 = 16 << 20;
/// Writing them takes at most one part in so many of the time.
const SHARE: u32 = 20;

type Rows = BTreeMap<String, Arc<Row>>;

#[derive(Clone, Default)]
struct Everything {
    head: Head,
    rows: Rows,
    answers: Answers,
    maps: Maps,
}

/// By owner and key.
type Answers = BTreeMap<(String, String), Arc<KeptAnswer>>;

type Shared = Arc<RwLock<Everything>>;

pub(crate) struct Writer {
    shared: Shared,
    folder: PathBuf,
    journal: Journal,
    /// Which journal goes on from the documents.
    epoch: u64,
    /// The last that documents were to name, also where it is not known whether they do.
    epoch_last: u64,
    /// The documents may name another journal than the one that is written: what it gets might not be read again.
    unsettled: bool,
    written: Written,
    next_documents: Instant,
    rebuilt: Option<Everything>,
}

pub(crate) struct Reader(Shared);

pub(crate) struct View {
    pub(super) head: Head,
    pub(super) rows: Rows,
    answers: Answers,
    pub(super) maps: Maps,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    revision: u64,
    cluster: String,
    incarnation: String,
    journal: u64,
    /// Whether that journal is written without syncs; an earlier version did not say.
    #[serde(default)]
    unsynced: Option<bool>,
    /// Whether leases and answers were kept from the first on; an earlier version kept none, or did not say.
    #[serde(default)]
    aside: bool,
    kvs: Vec<StoredRow>,
    #[serde(default)]
    answers: Vec<KeptAnswer>,
}

pub(super) fn is_there(folder: &Path) -> bool {
    folder.join(RAW).exists()
}

fn journal_path(folder: &Path, epoch: u64) -> PathBuf {
    folder.join(format!("journal-{epoch}.log"))
}

impl Everything {
    fn change(&mut self, change: &Change) -> u64 {
        match change {
            Change::Put(row) => {
                self.rows.insert(row.key.clone(), Arc::new(row.clone()));
            }
            Change::Delete(key) => {
                self.rows.remove(key);
            }
        }
        let Effect { edits, shapeless } = shape::effect(change);
        for edit in edits {
            self.maps.edit(edit);
        }
        u64::from(shapeless)
    }

    fn keep(&mut self, answer: KeptAnswer) {
        let id = (answer.owner.clone(), answer.key.clone());
        self.answers.insert(id, Arc::new(answer));
    }

    fn take(&mut self, entry: Entry) {
        for answer in entry.answers {
            self.keep(answer);
        }
        for stored in entry.changes {
            self.change(&Change::from(stored));
        }
        self.head.revision = entry.revision;
    }
}

/// What the document says, without the journal: which that is, and how it was written.
fn load(folder: &Path) -> anyhow::Result<(Everything, u64, Option<Written>)> {
    let path = folder.join(RAW);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let raw: Raw = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    // The next journal has to have a number too.
    anyhow::ensure!(raw.journal < u64::MAX, "{} is damaged", path.display());
    let mut all = Everything {
        head: Head {
            revision: raw.revision,
            cluster: raw.cluster,
            incarnation: raw.incarnation,
            lacks_aside: !raw.aside,
        },
        ..Everything::default()
    };
    for row in raw.kvs {
        all.change(&Change::Put(row.into()));
    }
    for answer in raw.answers {
        all.keep(answer);
    }
    Ok((all, raw.journal, raw.unsynced.map(Written::of)))
}

/// What is there, without changing a byte of it.
pub(super) fn read(folder: &Path) -> anyhow::Result<Reader> {
    let (mut all, epoch, told) = load(folder)?;
    let written = told.unwrap_or(Written::Synced);
    let text = fs::read(journal_path(folder, epoch)).context("read the journal")?;
    journal::read(&text, written, &mut |entry| all.take(entry))?;
    Ok(Reader(Arc::new(RwLock::new(all))))
}

pub(super) fn open(folder: &Path, mode: MirrorMode) -> anyhow::Result<(Writer, Reader)> {
    let written = match mode {
        MirrorMode::Sync => Written::Synced,
        MirrorMode::Async => Written::Unsynced,
    };
    if !is_there(folder) {
        let mut new = Everything::default();
        new.head.incarnation = new_incarnation();
        let path = folder.join(RAW);
        fs::rename(write_beside(&path, &Raw::of(&new, 1, written))?, path)?;
        sync_folder(folder)?;
    }
    let (mut all, epoch, told) = load(folder)?;
    let before = told.unwrap_or(written);
    let journal = Journal::open(&journal_path(folder, epoch), before, &mut |entry| all.take(entry))?;
    sync_folder(folder)?;
    let shared: Shared = Arc::new(RwLock::new(all));
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        folder: folder.to_owned(),
        journal,
        epoch,
        epoch_last: epoch,
        unsettled: false,
        written,
        next_documents: Instant::now(),
        rebuilt: None,
    };
    // A journal of the other kind is not gone on with.
    if told != Some(written) {
        writer.write_all()?;
    }
    Ok((writer, Reader(shared)))
}

impl Writer {
    pub(super) fn head(&self) -> Head {
        read_lock(&self.shared).head.clone()
    }

    pub(super) fn apply(&mut self, batches: &[Batch]) -> anyhow::Result<u64> {
        let Some(last) = batches.last() else { return Ok(0) };
        if self.unsettled {
            self.write_all()?;
        }
        let changes = || batches.iter().flat_map(|batch| &batch.changes);
        let entry = Entry {
            revision: last.revision,
            changes: changes().map(Into::into).collect(),
            answers: batches.iter().filter_map(|batch| batch.kept.clone()).collect(),
        };
        self.journal.append(&entry)?;
        let mut all = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let shapeless = changes().map(|change| all.change(change)).sum();
        for answer in entry.answers {
            all.keep(answer);
        }
        all.head.revision = last.revision;
        Ok(shapeless)
    }

    pub(super) fn begin_rebuild(&mut self) {
        self.rebuilt = Some(Everything::default());
    }

    pub(super) fn rebuild_rows(&mut self, rows: Vec<Row>) -> u64 {
        let new = self.rebuilt.get_or_insert_default();
        rows.into_iter().map(|row| new.change(&Change::Put(row))).sum()
    }

    pub(super) fn rebuild_answers(&mut self, kept: Vec<KeptAnswer>) {
        let new = self.rebuilt.get_or_insert_default();
        for answer in kept {
            new.keep(answer);
        }
    }

    pub(super) fn abort_rebuild(&mut self) {
        self.rebuilt = None;
    }

    pub(super) fn end_rebuild(&mut self, revision: u64, cluster: &str) -> anyhow::Result<()> {
        let mut new = self.rebuilt.take().unwrap_or_default();
        new.head = Head {
            revision,
            cluster: cluster.to_owned(),
            incarnation: self.head().incarnation,
            lacks_aside: false,
        };
        self.write_documents(&new)?;
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) fn set_aside(&mut self) -> anyhow::Result<()> {
        self.write_all()?;
        let all = read_lock(&self.shared).clone();
        aside::keep_document(&self.folder.join(RAW), &self.folder, &all.head)?;
        let mut all = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        all.head.incarnation = new_incarnation();
        Ok(())
    }

    pub(super) fn write_documents_when_due(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let due = began >= self.next_documents || self.journal.bytes >= JOURNAL_BYTES_MAX;
        if !self.unsettled && (self.journal.bytes == 0 || !due) {
            return Ok(());
        }
        let ended = now_ms().saturating_sub(GRACE_MS);
        let all = {
            let mut all = self.shared.write().unwrap_or_else(PoisonError::into_inner);
            all.answers.retain(|_, answer| answer.expires_ms >= ended);
            all.clone()
        };
        self.write_documents(&all)?;
        self.next_documents = Instant::now() + EVERY.max(began.elapsed() * SHARE);
        Ok(())
    }

    pub(super) fn write_all(&mut self) -> anyhow::Result<()> {
        let all = read_lock(&self.shared).clone();
        self.write_documents(&all)
    }

    /// The raw document is the one that counts; the others follow from it.
    fn write_documents(&mut self, all: &Everything) -> anyhow::Result<()> {
        let next = self.epoch_last + 1;
        let path = journal_path(&self.folder, next);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let journal = Journal::open(&path, self.written, &mut |_entry| ())?;
        sync_folder(&self.folder)?;
        let path = self.folder.join(RAW);
        let beside = write_beside(&path, &Raw::of(all, next, self.written))?;
        // From here on nobody knows which of the two a crash would leave, until the folder is on the disk.
        self.unsettled = true;
        self.epoch_last = next;
        fs::rename(beside, path).context("replace the document")?;
        sync_folder(&self.folder)?;
        self.unsettled = false;
        self.journal = journal;
        for old in std::mem::replace(&mut self.epoch, next)..next {
            if let Err(error) = fs::remove_file(journal_path(&self.folder, old)) {
                tracing::debug!(%error, "an old journal stays behind");
            }
        }
        for (name, rows) in all.maps.documents() {
            let document = serde_json::json!({"revision": all.head.revision, name: rows});
            let path = self.folder.join(format!("{name}.json"));
            fs::rename(write_beside(&path, &document)?, path)?;
        }
        sync_folder(&self.folder)
    }
}

impl Raw {
    fn of(all: &Everything, epoch: u64, written: Written) -> Self {
        Self {
            revision: all.head.revision,
            cluster: all.head.cluster.clone(),
            incarnation: all.head.incarnation.clone(),
            journal: epoch,
            unsynced: Some(written == Written::Unsynced),
            aside: !all.head.lacks_aside,
            kvs: all.rows.values().map(|row| row.as_ref().into()).collect(),
            answers: all
                .answers
                .values()
                .map(|answer| KeptAnswer::clone(answer))
                .collect(),
        }
    }
}

fn read_lock(shared: &Shared) -> RwLockReadGuard<'_, Everything> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    pub(super) fn select(&self, table: &'static Table, key: &[Cell]) -> Vec<Record> {
        read_lock(&self.0).maps.select(table, key)
    }

    pub(super) fn get(&self, key: &str) -> Option<Row> {
        read_lock(&self.0).rows.get(key).map(|row| Row::clone(row))
    }

    pub(super) fn under(&self, prefix: &str) -> Vec<Row> {
        let all = read_lock(&self.0);
        let under = all.rows.range(prefix.to_owned()..);
        let under = under.take_while(|(key, _)| key.starts_with(prefix));
        under.map(|(_, row)| Row::clone(row)).collect()
    }

    pub(super) fn view(&self) -> View {
        let Everything {
            head,
            rows,
            answers,
            maps,
        } = read_lock(&self.0).clone();
        View {
            head,
            rows,
            answers,
            maps,
        }
    }
}

impl View {
    pub(super) fn answers(&self) -> Vec<KeptAnswer> {
        let now = now_ms();
        let alive = self.answers.values().filter(|answer| answer.expires_ms >= now);
        alive.map(|answer| KeptAnswer::clone(answer)).collect()
    }

    pub(super) fn answer(&self, owner: &str, key: &str) -> Option<KeptAnswer> {
        let id = (owner.to_owned(), key.to_owned());
        self.answers.get(&id).map(|answer| KeptAnswer::clone(answer))
    }

    pub(super) fn after(&self, key: Option<&str>, limit: usize) -> Vec<Row> {
        let from = key.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rows = self.rows.range::<str, _>((from, std::ops::Bound::Unbounded));
        rows.take(limit).map(|(_, row)| Row::clone(row)).collect()
    }
}
