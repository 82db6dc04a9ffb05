//! Keeps a copy of another cluster beside, before it is replaced: it may be the last there is.
//! Invariant: `of-CLUSTER-REVISION.db` or `.json` is whole and on the disk as soon as it has this name. A try that
//! fails leaves no such name, so that the next one begins anew.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rusqlite::Connection;

use super::room::{Room, used_bytes};
use super::{Head, private_file, sync_folder};

/// The revision is in it: one cluster may come twice, and has more the second time.
fn place(folder: &Path, head: &Head, ending: &str) -> PathBuf {
    folder.join(format!("of-{}-{}.{ending}", head.cluster, head.revision))
}

pub(super) fn keep_database(connection: &Connection, room: &Room, head: &Head) -> anyhow::Result<()> {
    let folder = &room.folder;
    remove_leftovers(folder).context("remove what an earlier try left behind")?;
    let (beside, path) = (place(folder, head, "tmp"), place(folder, head, "db"));
    if !path.exists() {
        // It stays there, so what is needed beside it has to find room too.
        let written = room
            .check(used_bytes(connection)?)
            .and_then(|()| write_database(connection, &beside))
            .and_then(|()| Ok(fs::rename(&beside, &path)?));
        if written.is_err() {
            // On a full disk it would take the room of what must be written.
            fs::remove_file(&beside).ok();
        }
        written.context("keep the copy of the other cluster")?;
    }
    sync_folder(folder)
}

fn write_database(connection: &Connection, path: &Path) -> anyhow::Result<()> {
    // SQLite takes an empty file for its own, and keeps who may read it.
    private_file().create(true).append(true).open(path)?;
    let name = path.to_str().context("the data folder's name is no text")?;
    connection.execute("VACUUM INTO ?", [name])?;
    Ok(fs::File::open(path)?.sync_all()?)
}

fn remove_leftovers(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let left = name
            .to_str()
            .is_some_and(|name| name.starts_with("of-") && name.contains(".tmp"));
        if left {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The document is on the disk already, and is never written into: a second name for it is enough.
pub(super) fn keep_document(document: &Path, folder: &Path, head: &Head) -> anyhow::Result<()> {
    match fs::hard_link(document, place(folder, head, "json")) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).context("keep the copy of the other cluster");
        }
        _ => {}
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use service::config::{MirrorEngine, MirrorMode};

    use super::*;
    use crate::copy::{self, Writer};
    use crate::row::Row;

    fn holds(writer: &mut Writer, revision: u64, value: &str) {
        let row = Row {
            key: "key".to_owned(),
            value: value.to_owned().into(),
            ..Row::default()
        };
        writer.begin_rebuild().unwrap();
        writer.rebuild_rows(vec![row]).unwrap();
        writer.end_rebuild(revision, "lost").unwrap();
    }

    /// Each time the copy has more, it is kept once more; what earlier tries left behind is no reason not to.
    fn is_kept(engine: MirrorEngine, read: fn(&Path) -> Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _reader) = copy::open(folder.path(), engine, MirrorMode::Sync, 0).unwrap();
        for name in ["of-lost.db", "of-lost.json", "of-lost-5.tmp"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for (revision, value) in [(5, "old"), (9, "new")] {
            holds(&mut writer, revision, value);
            writer.set_aside().unwrap();
            // The rebuild failed, and everything is tried again.
            writer.set_aside().unwrap();
        }
        let ending = match engine {
            MirrorEngine::Sqlite => "db",
            MirrorEngine::Json => "json",
        };
        for (revision, value) in [(5, "old"), (9, "new")] {
            let path = folder.path().join(format!("of-lost-{revision}.{ending}"));
            assert_eq!(read(&path).as_deref(), Some(value), "{}", path.display());
        }
    }

    #[test]
    fn a_database_is_kept_whole() {
        is_kept(MirrorEngine::Sqlite, |path| {
            let kept = Connection::open(path).ok()?;
            let value: Vec<u8> = kept
                .query_row("SELECT value FROM kv", [], |row| row.get(0))
                .ok()?;
            String::from_utf8(value).ok()
        });
    }

    #[test]
    fn a_document_is_kept_whole() {
        is_kept(MirrorEngine::Json, |path| {
            let kept: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            Some(kept["kvs"][0]["value"].as_str()?.to_owned())
        });
    }

    #[test]
    fn a_copy_that_cannot_be_kept_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE kv (key TEXT)").unwrap();
        let head = Head {
            cluster: "lost".to_owned(),
            revision: 5,
            ..Head::default()
        };
        // As on a full disk: within a transaction this is refused, after the file was made.
        connection.execute_batch("BEGIN").unwrap();
        let room = Room::of(folder.path(), 0);
        keep_database(&connection, &room, &head).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        connection.execute_batch("COMMIT").unwrap();
        keep_database(&connection, &room, &head).unwrap();
        assert!(folder.path().join("of-lost-5.db").exists());
    }
}
