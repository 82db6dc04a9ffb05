//! Snapshots: hard-linked checkpoints in folders, each with a manifest of checksums.
//!
//! Written beside (`.tmp`), synced, renamed: a snapshot that has its name is whole. Metadata is read
//! from the checkpoint itself, never from live memory, so that it cannot be older than the data.

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
    pub files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub name: String,
    pub bytes: u64,
    pub crc32c: u32,
}

/// The snapshots of this node; the newest is the one that counts.
pub struct Snapshots {
    root: PathBuf,
    current: Mutex<Option<(SnapshotMeta, PathBuf)>>,
}

const POISON: &str = "no holder of the snapshot list panics";

impl Snapshots {
    /// Finds the newest whole snapshot and removes what was left half-written.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let mut newest: Option<(SnapshotMeta, PathBuf)> = None;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let manifest = if path.extension().is_some() {
                None
            } else {
                read_manifest(&path).ok()
            };
            match manifest {
                Some(manifest)
                    if newest
                        .as_ref()
                        .is_none_or(|(meta, _)| meta.last_log_id < manifest.meta.last_log_id) =>
                {
                    if let Some((_, older)) = newest.replace((manifest.meta, path)) {
                        files::remove_folder(&older)?;
                    }
                }
                _ => files::remove_folder(&path)?,
            }
        }
        Ok(Self {
            root,
            current: Mutex::new(newest),
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

    /// What the files of the present snapshot must still be wherever they are linked to.
    pub fn present_files(&self) -> Vec<ManifestFile> {
        let manifest = self.current().and_then(|(_, path)| read_manifest(&path).ok());
        manifest.map(|manifest| manifest.files).unwrap_or_default()
    }

    /// Checksums, syncs and names the files in `folder`; older snapshots go.
    pub fn adopt(&self, folder: &Path, meta: SnapshotMeta) -> io::Result<PathBuf> {
        let files = describe(folder)?;
        self.adopt_described(folder, meta, files)
    }

    pub fn adopt_described(
        &self,
        folder: &Path,
        meta: SnapshotMeta,
        files: Vec<ManifestFile>,
    ) -> io::Result<PathBuf> {
        let manifest = Manifest {
            format: FORMAT,
            meta: meta.clone(),
            files,
        };
        files::write_atomically(&folder.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let mut name = self.root.join(index.to_string());
        let mut again = 0;
        while name.exists() {
            again += 1;
            name = self.root.join(format!("{index}-{again}"));
        }
        fs::rename(folder, &name)?;
        files::sync_folder(&self.root)?;
        let older = self.current.lock().expect(POISON).replace((meta, name.clone()));
        if let Some((_, path)) = older {
            // A transfer that still reads from it holds the files open; only the names go.
            files::remove_folder(&path)?;
        }
        Ok(name)
    }
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

pub fn describe(folder: &Path) -> io::Result<Vec<ManifestFile>> {
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

/// Links what never changes (tables) and copies what a running database rewrites.
pub fn link_files(manifest: &Manifest, from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for file in &manifest.files {
        let (source, target) = (from.join(&file.name), to.join(&file.name));
        if is_table(&file.name) {
            fs::hard_link(source, target)?;
        } else {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}
