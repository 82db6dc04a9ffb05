//! The copy itself, in one of two kinds of database. One writes, any number read.
//! Invariant: what readers see is one revision, whole; a crash at any moment leaves the last one that was written.
//! It must not know where changes come from.

mod answers;
mod aside;
#[cfg(test)]
mod bent;
mod document;
mod head;
mod journal;
mod json;
mod maps;
mod room;
mod sql;
mod sqlite;
mod tables;

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use kvstore_client::wire::mirror::KeptAnswer;
use serde_json::{Map, Value};
use service::config::{MirrorEngine, MirrorMode};
use service::private;

use crate::row::{Batch, Row};
use crate::shape::{Cell, Table};

pub(crate) use maps::Maps;

/// What a copy is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// 0 while nothing was ever copied.
    pub(crate) revision: u64,
    /// Of the store that was copied; empty while it is not known.
    pub(crate) cluster: String,
    /// Drawn when the database is made, so that a new one is not taken for the old.
    pub(crate) incarnation: String,
    /// An earlier version kept no leases and no answers, which a copy gets only when it is made anew.
    pub(crate) lacks_aside: bool,
}

pub(crate) enum Writer {
    Sqlite(sqlite::Writer),
    Json(json::Writer),
}

pub(crate) enum Reader {
    Sqlite(sqlite::Reader),
    Json(json::Reader),
}

/// A row of a table, by the names of its columns.
pub(crate) type Record = Map<String, Value>;

/// Everything at one revision, which stays as it is while it is looked at.
pub(crate) enum View {
    Sqlite(sqlite::View),
    Json(json::View),
}

/// What nodes on the same disk want to be free is left to them when much is to be written.
pub(crate) fn open(
    folder: &Path,
    engine: MirrorEngine,
    mode: MirrorMode,
    free_bytes_min: u64,
) -> anyhow::Result<(Writer, Reader)> {
    make_folder(folder)?;
    Ok(match engine {
        MirrorEngine::Sqlite => {
            let (writer, reader) = sqlite::open(folder, mode, free_bytes_min)?;
            (Writer::Sqlite(writer), Reader::Sqlite(reader))
        }
        MirrorEngine::Json => {
            let (writer, reader) = json::open(folder, mode)?;
            (Writer::Json(writer), Reader::Json(reader))
        }
    })
}

/// Opens what a mirror left behind, to read it. Whose engine was changed has left two copies.
pub(crate) fn open_to_read(folder: &Path) -> anyhow::Result<Vec<(MirrorEngine, Reader)>> {
    let mut readers = Vec::new();
    if sqlite::is_there(folder) {
        let reader = Reader::Sqlite(sqlite::Reader::of(folder)?);
        readers.push((MirrorEngine::Sqlite, reader));
    }
    if json::is_there(folder) {
        let reader = Reader::Json(json::read(folder)?);
        readers.push((MirrorEngine::Json, reader));
    }
    anyhow::ensure!(
        !readers.is_empty(),
        "{} is not the folder of a mirror",
        folder.display()
    );
    Ok(readers)
}

impl Writer {
    pub(crate) fn head(&self) -> Head {
        match self {
            Self::Sqlite(writer) => writer.head.clone(),
            Self::Json(writer) => writer.head(),
        }
    }

    /// All of it or nothing; when this returns it is as durable as the mode asks. Answers how many values were
    /// not of the form that their keys promise.
    pub(crate) fn apply(&mut self, batches: &[Batch]) -> anyhow::Result<u64> {
        match self {
            Self::Sqlite(writer) => writer.apply(batches),
            Self::Json(writer) => writer.apply(batches),
        }
    }

    /// Begins a copy that replaces this one when it is whole.
    pub(crate) fn begin_rebuild(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.begin_rebuild(),
            Self::Json(writer) => {
                writer.begin_rebuild();
                Ok(())
            }
        }
    }

    pub(crate) fn rebuild_rows(&mut self, rows: Vec<Row>) -> anyhow::Result<u64> {
        match self {
            Self::Sqlite(writer) => writer.rebuild_rows(rows),
            Self::Json(writer) => Ok(writer.rebuild_rows(rows)),
        }
    }

    pub(crate) fn rebuild_answers(&mut self, kept: Vec<KeptAnswer>) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.rebuild_answers(&kept),
            Self::Json(writer) => {
                writer.rebuild_answers(kept);
                Ok(())
            }
        }
    }

    pub(crate) fn end_rebuild(&mut self, revision: u64, cluster: &str) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.end_rebuild(revision, cluster),
            Self::Json(writer) => writer.end_rebuild(revision, cluster),
        }
    }

    pub(crate) fn abort_rebuild(&mut self) {
        match self {
            Self::Sqlite(writer) => writer.abort_rebuild(),
            Self::Json(writer) => writer.abort_rebuild(),
        }
    }

    /// Keeps what is here under another name, before it is replaced by the copy of another cluster.
    pub(crate) fn set_aside(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.set_aside(),
            Self::Json(writer) => writer.set_aside(),
        }
    }

    /// Writes what is there already: only by that one learns whether anything can be written.
    pub(crate) fn try_to_write(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.try_to_write(),
            Self::Json(writer) => writer.write_all(),
        }
    }

    /// Work that can wait until nothing else is to be done.
    pub(crate) fn tidy(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => {
                writer.tidy();
                Ok(())
            }
            Self::Json(writer) => writer.write_documents_when_due(),
        }
    }
}

impl Reader {
    /// Rows whose key begins with these cells, in the order of their keys.
    pub(crate) fn select(&self, table: &'static Table, key: &[Cell]) -> anyhow::Result<Vec<Record>> {
        match self {
            Self::Sqlite(reader) => reader.select(table, key),
            Self::Json(reader) => Ok(reader.select(table, key)),
        }
    }

    /// Keys below a prefix, with their values.
    pub(crate) fn under(&self, prefix: &str) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Sqlite(reader) => reader.under(prefix),
            Self::Json(reader) => Ok(reader.under(prefix)),
        }
    }

    pub(crate) fn get(&self, key: &str) -> anyhow::Result<Option<Row>> {
        match self {
            Self::Sqlite(reader) => reader.get(key),
            Self::Json(reader) => Ok(reader.get(key)),
        }
    }

    pub(crate) fn view(&self) -> anyhow::Result<View> {
        Ok(match self {
            Self::Sqlite(reader) => View::Sqlite(reader.view()?),
            Self::Json(reader) => View::Json(reader.view()),
        })
    }
}

impl View {
    pub(crate) fn head(&self) -> &Head {
        match self {
            Self::Sqlite(view) => &view.head,
            Self::Json(view) => &view.head,
        }
    }

    /// Answers kept for idempotency keys that have not ended.
    pub(crate) fn answers(&self) -> anyhow::Result<Vec<KeptAnswer>> {
        match self {
            Self::Sqlite(view) => view.answers(),
            Self::Json(view) => Ok(view.answers()),
        }
    }

    /// The answer kept for this owner's key, also after it ended.
    pub(crate) fn answer(&self, owner: &str, key: &str) -> anyhow::Result<Option<KeptAnswer>> {
        match self {
            Self::Sqlite(view) => view.answer(owner, key),
            Self::Json(view) => Ok(view.answer(owner, key)),
        }
    }

    pub(crate) fn count(&self) -> anyhow::Result<u64> {
        match self {
            Self::Sqlite(view) => view.count(),
            Self::Json(view) => Ok(view.rows.len() as u64),
        }
    }

    /// The first rows after a key, at most so many.
    pub(crate) fn after(&self, key: Option<&str>, limit: usize) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Sqlite(view) => view.after(key, limit),
            Self::Json(view) => Ok(view.after(key, limit)),
        }
    }

    pub(crate) fn select(&self, table: &'static Table, key: &[Cell]) -> anyhow::Result<Vec<Record>> {
        match self {
            Self::Sqlite(view) => view.select(table, key),
            Self::Json(view) => Ok(view.maps.select(table, key)),
        }
    }

    /// Of the rows whose key begins with these cells, the last so many before the one of this next cell, the last
    /// first. No others are read.
    pub(crate) fn last(
        &self,
        table: &'static Table,
        key: &[Cell],
        before: Option<&Cell>,
        limit: usize,
    ) -> anyhow::Result<Vec<Record>> {
        match self {
            Self::Sqlite(view) => view.last(table, key, before, limit),
            Self::Json(view) => Ok(view.maps.last(table, key, before, limit)),
        }
    }
}

fn new_incarnation() -> String {
    let random = getrandom::u64().expect("the operating system has random bytes to give");
    format!("{random:016x}")
}

/// For its owner alone, and on the disk before anything in it counts as being there.
pub(crate) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    private::make_folder(folder).with_context(|| format!("make the folder {}", folder.display()))
}

/// What a process that died wrote may be read back and still not be on the disk: whoever goes on from it brings it there
/// first. Nothing where there is no such file.
fn sync_file(path: &Path) -> anyhow::Result<()> {
    match fs::File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        synced => synced.with_context(|| format!("sync {}", path.display())),
    }
}

/// A name is on the disk only when its folder is.
fn sync_folder(folder: &Path) -> anyhow::Result<()> {
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("sync {}", folder.display()))
}

/// Only the owner may read: the raw table has what signs users in.
fn private_file() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// All files of a copy that is being written, as a process that is killed leaves them.
    fn killed(folder: &Path, at: &Path) {
        make_folder(at).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "mirror.db-shm" {
                fs::copy(entry.path(), at.join(entry.file_name())).unwrap();
            }
        }
    }

    fn batch(revision: u64) -> Batch {
        Batch {
            revision,
            changes: vec![crate::row::Change::Delete(format!("key-{revision}"))],
            kept: None,
            arrived: Instant::now(),
        }
    }

    #[test]
    fn who_is_killed_goes_on_in_any_mode() {
        for engine in [MirrorEngine::Sqlite, MirrorEngine::Json] {
            let folder = tempfile::tempdir().unwrap();
            let (at, later) = (folder.path().join("at"), folder.path().join("later"));
            let (mut writer, _reader) = open(&at, engine, MirrorMode::Async, 0).unwrap();
            writer.apply(&[batch(5), batch(6)]).unwrap();
            killed(&at, &later);
            let (mut writer, _reader) = open(&later, engine, MirrorMode::Sync, 0).unwrap();
            assert_eq!(writer.head().revision, 6, "{engine:?}");
            writer.apply(&[batch(7)]).unwrap();
            assert_eq!(writer.head().revision, 7, "{engine:?}");
        }
    }

    #[test]
    fn nothing_is_taken_while_a_crash_might_leave_it_out() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (mut writer, _reader) = open(folder, MirrorEngine::Json, MirrorMode::Sync, 0).unwrap();
        writer.apply(&[batch(5)]).unwrap();
        // The document is written, and whether it has its name cannot be known.
        let (document, moved) = (folder.join("kv.json"), folder.join("moved"));
        fs::rename(&document, &moved).unwrap();
        fs::create_dir_all(document.join("in the way")).unwrap();
        writer.set_aside().unwrap_err();
        writer.apply(&[batch(6)]).unwrap_err();
        assert_eq!(writer.head().revision, 5);
        fs::remove_dir_all(&document).unwrap();
        fs::rename(&moved, &document).unwrap();
        writer.apply(&[batch(6)]).unwrap();
        drop(writer);
        let (writer, _reader) = open(folder, MirrorEngine::Json, MirrorMode::Async, 0).unwrap();
        assert_eq!(writer.head().revision, 6);
        drop(writer);
        let journals = fs::read_dir(folder).unwrap().flatten().filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("journal-")
        });
        assert_eq!(journals.count(), 1, "what was begun in vain is gone");
    }
}
