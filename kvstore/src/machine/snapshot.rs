//! Snapshots: hard-linked checkpoints in folders, each with a manifest of checksums.
//!
//! Written beside (`.tmp`), synced, renamed: a snapshot that has its name is whole. Metadata is read
//! from the checkpoint itself, never from live memory, so that it cannot be older than the data.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::raft::types::SnapshotMeta;
use crate::storage::files;

pub const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// What a snapshot folder holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub meta: SnapshotMeta,
    /// Which generation of this node's state has these tables; names of tables say nothing across generations.
    #[serde(default)]
    pub generation: u64,
    pub files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub name: String,
    pub bytes: u64,
    pub crc32c: u32,
}

/// Of tables that an earlier snapshot has read, so much is read again for each one, in turn: damage is found some day,
/// and a snapshot does not cost as much as all that is stored.
const READ_AGAIN_BYTES: u64 = 256 << 20;

/// The snapshots of this node; the newest is the one that counts.
pub struct Snapshots {
    root: PathBuf,
    current: Mutex<Option<(SnapshotMeta, PathBuf)>>,
    /// The table that was read again last.
    read_again: Mutex<String>,
}

const POISON: &str = "no holder of the snapshot list panics";

impl Snapshots {
    /// Finds the newest whole snapshot and removes what was left half-written.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let newest = newest_in(&root)?;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            if newest.as_ref().is_none_or(|(_, newest)| *newest != path) {
                files::remove_folder(&path)?;
            }
        }
        let newest = newest.map(|(manifest, path)| (manifest.meta, path));
        Ok(Self {
            root,
            current: Mutex::new(newest),
            read_again: Mutex::default(),
        })
    }

    pub fn current(&self) -> Option<(SnapshotMeta, PathBuf)> {
        self.current.lock().expect(POISON).clone()
    }

    /// Where a snapshot at this log index is written before it has its name.
    pub fn beside(&self, index: u64) -> io::Result<PathBuf> {
        let path = self.root.join(format!("{index}.tmp"));
        files::remove_folder(&path)?;
        Ok(path)
    }

    /// What tables of this generation must still be, as far as the present snapshot has linked them.
    pub fn present_files(&self, generation: u64) -> Vec<ManifestFile> {
        let manifest = self.current().and_then(|(_, path)| read_manifest(&path).ok());
        let manifest = manifest.filter(|manifest| manifest.generation == generation);
        manifest.map(|manifest| manifest.files).unwrap_or_default()
    }

    /// Checksums and syncs what a checkpoint of this generation consists of. A table never changes, so for most of
    /// those that the present snapshot has too its word is taken.
    pub fn describe_next(&self, folder: &Path, generation: u64) -> io::Result<Vec<ManifestFile>> {
        let known = self.present_files(generation);
        let mut last = self.read_again.lock().expect(POISON);
        describe_but(folder, &trusted(&known, &mut last, READ_AGAIN_BYTES))
    }

    /// Checksums, syncs and names the files in `folder`; older snapshots go.
    pub fn adopt(
        &self,
        folder: &Path,
        meta: SnapshotMeta,
        generation: u64,
    ) -> io::Result<(SnapshotMeta, PathBuf)> {
        let files = describe(folder)?;
        self.adopt_described(folder, meta, files, generation)
    }

    /// The same where the files are known: each is synced, here or where it is linked from. Answers the snapshot that
    /// counts now: a newer one may have come from another member while this was made.
    pub fn adopt_described(
        &self,
        folder: &Path,
        meta: SnapshotMeta,
        files: Vec<ManifestFile>,
        generation: u64,
    ) -> io::Result<(SnapshotMeta, PathBuf)> {
        let manifest = Manifest {
            format: FORMAT,
            meta: meta.clone(),
            generation,
            files,
        };
        files::write_atomically(&folder.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let mut current = self.current.lock().expect(POISON);
        if let Some((newer, path)) = &*current
            && newer.last_log_id > meta.last_log_id
        {
            files::remove_folder(folder)?;
            return Ok((newer.clone(), path.clone()));
        }
        let mut name = self.root.join(index.to_string());
        let mut again = 0;
        while name.exists() {
            again += 1;
            name = self.root.join(format!("{index}-{again}"));
        }
        fs::rename(folder, &name)?;
        files::sync_folder(&self.root)?;
        let older = current.replace((meta.clone(), name.clone()));
        drop(current);
        if let Some((_, path)) = older {
            // A transfer that still reads from it holds the files open; only the names go.
            files::remove_folder(&path)?;
        }
        Ok((meta, name))
    }
}

/// The newest whole snapshot among those of a node. Nothing is tidied up.
pub(crate) fn newest_in(root: &Path) -> io::Result<Option<(Manifest, PathBuf)>> {
    let mut newest: Option<(Manifest, PathBuf)> = None;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        // What is still being written has an ending, and what is not whole has no manifest.
        let Ok(manifest) = read_manifest(&path) else {
            continue;
        };
        let is_newer = newest
            .as_ref()
            .is_none_or(|(known, _)| known.meta.last_log_id < manifest.meta.last_log_id);
        if path.extension().is_none() && is_newer {
            newest = Some((manifest, path));
        }
    }
    Ok(newest)
}

pub fn read_manifest(folder: &Path) -> io::Result<Manifest> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder.join(MANIFEST))?)?;
    if manifest.format != FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("snapshot format {} is not known", manifest.format),
        ));
    }
    Ok(manifest)
}

/// A table that is not what it was when an earlier snapshot of the same database linked it: tables never change.
pub fn changed_table<'files>(now: &'files [ManifestFile], before: &[ManifestFile]) -> Option<&'files str> {
    let tables = now.iter().filter(|file| is_table(&file.name));
    let mut changed = tables.filter(|file| before.iter().any(|old| old.name == file.name && old != *file));
    changed.next().map(|file| file.name.as_str())
}

fn is_table(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "sst")
}

/// The tables that need not be read again now: all but some `bytes_max` bytes of them, which follow the last ones.
fn trusted<'files>(
    known: &'files [ManifestFile],
    last: &mut String,
    bytes_max: u64,
) -> HashMap<&'files str, &'files ManifestFile> {
    let tables: Vec<&ManifestFile> = known.iter().filter(|file| is_table(&file.name)).collect();
    let begin = tables.partition_point(|file| file.name <= *last);
    let mut bytes = 0;
    let in_turn = tables[begin..].iter().chain(&tables[..begin]);
    let to_trust = in_turn.skip_while(|file| {
        let again = bytes < bytes_max;
        if again {
            bytes += file.bytes;
            last.clone_from(&file.name);
        }
        again
    });
    to_trust.map(|file| (file.name.as_str(), *file)).collect()
}

pub fn describe(folder: &Path) -> io::Result<Vec<ManifestFile>> {
    describe_but(folder, &HashMap::new())
}

fn describe_but(folder: &Path, trusted: &HashMap<&str, &ManifestFile>) -> io::Result<Vec<ManifestFile>> {
    let mut described = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| io::Error::other(format!("odd file name {}", name.display())))?;
        if name == MANIFEST {
            continue;
        }
        let known = trusted.get(name.as_str());
        if let Some(known) = known.filter(|known| entry.metadata().is_ok_and(|now| now.len() == known.bytes))
        {
            described.push(ManifestFile::clone(known));
            continue;
        }
        let file = File::open(entry.path())?;
        file.sync_all()?;
        let (bytes, crc32c) = checksum(file)?;
        described.push(ManifestFile { name, bytes, crc32c });
    }
    described.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(described)
}

fn checksum(mut file: File) -> io::Result<(u64, u32)> {
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, crc));
        }
        bytes += read as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
    }
}

/// Links what never changes (tables) and copies what a running database rewrites, which is little. Afterwards each file
/// is on disk if it is in `from`: a link leads to the same bytes. The names are not yet.
pub fn link_files(manifest: &Manifest, from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in &manifest.files {
        let (source, target) = (from.join(&file.name), to.join(&file.name));
        if is_table(&file.name) {
            fs::hard_link(source, target)?;
        } else {
            fs::copy(source, &target)?;
            File::open(target)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::entry::log_id;
    use crate::raft::types::StoredMembership;

    fn made(snapshots: &Snapshots, index: u64, generation: u64, table: &str) -> (SnapshotMeta, PathBuf) {
        let folder = snapshots.beside(index).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("000007.sst"), table).unwrap();
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(1, 1, index)),
            last_membership: StoredMembership::default(),
        };
        snapshots.adopt(&folder, meta, generation).unwrap()
    }

    fn index_of((meta, path): &(SnapshotMeta, PathBuf)) -> u64 {
        assert!(read_manifest(path).unwrap().meta == *meta);
        meta.last_log_id.unwrap().index
    }

    #[test]
    fn one_that_was_built_while_a_newer_one_came_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path().to_owned()).unwrap();
        assert_eq!(index_of(&made(&snapshots, 20, 2, "received")), 20);
        assert_eq!(index_of(&made(&snapshots, 10, 1, "built")), 20);
        assert_eq!(index_of(&snapshots.current().unwrap()), 20);
        drop(snapshots);
        let again = Snapshots::open(folder.path().to_owned()).unwrap();
        assert_eq!(index_of(&again.current().unwrap()), 20);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn tables_of_another_generation_are_not_compared() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path().to_owned()).unwrap();
        made(&snapshots, 20, 2, "of the leader");
        let other = [ManifestFile {
            name: "000007.sst".to_owned(),
            bytes: 3,
            crc32c: 1,
        }];
        assert_eq!(changed_table(&other, &snapshots.present_files(1)), None);
        let of_the_same = snapshots.present_files(2);
        assert_eq!(changed_table(&other, &of_the_same), Some("000007.sst"));
    }

    #[test]
    fn every_table_is_read_again_in_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let write = |n: u32, text: &str| fs::write(folder.path().join(format!("{n:06}.sst")), text).unwrap();
        (1..=5).for_each(|n| write(n, "as it was made"));
        let before = describe(folder.path()).unwrap();
        write(4, "of that length");
        write(6, "a new one");
        let mut last = String::new();
        let mut found = Vec::new();
        for _ in 0..6 {
            // Room for two tables a time, since the second one begins within it.
            let now = describe_but(folder.path(), &trusted(&before, &mut last, 20)).unwrap();
            assert_eq!(now.len(), 6);
            assert_eq!(now[5].bytes, 9, "what nobody knew is read at once");
            found.push((last.clone(), changed_table(&now, &before).map(str::to_owned)));
        }
        let found: Vec<(&str, Option<&str>)> = found
            .iter()
            .map(|(last, changed)| (last.trim_end_matches(".sst"), changed.as_deref()))
            .collect();
        let damaged = Some("000004.sst");
        let expected = [
            ("000002", None),
            ("000004", damaged),
            ("000001", None),
            ("000003", None),
            ("000005", damaged),
            ("000002", None),
        ];
        assert_eq!(found, expected);
        // One of another length is not the one that was known.
        write(4, "longer than it was");
        assert!(
            changed_table(
                &describe_but(folder.path(), &trusted(&before, &mut last, 0)).unwrap(),
                &before
            )
            .is_some()
        );
    }
}
