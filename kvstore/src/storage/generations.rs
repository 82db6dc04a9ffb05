//! Where the state machine's database lives: `sm/<generation>/`, named by `sm/CURRENT`.
//!
//! Installing a snapshot makes a new generation and switches `CURRENT` by one atomic rename: a crash
//! leaves the old state or the new one, never half of each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files;

#[derive(Debug)]
pub(crate) struct Generations {
    root: PathBuf,
}

impl Generations {
    /// Opens the folder and removes what an interrupted install or switch left behind.
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let generations = Self { root };
        let current = generations.current()?;
        for entry in fs::read_dir(&generations.root)? {
            let path = entry?.path();
            if path.is_dir() && path != generations.folder(current) {
                files::remove_folder(&path)?;
            }
        }
        Ok(generations)
    }

    pub(crate) fn current(&self) -> io::Result<u64> {
        let Some(content) = files::read_if_present(&self.root.join("CURRENT"))? else {
            return Ok(1);
        };
        let text = String::from_utf8_lossy(&content);
        text.trim().parse().map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("sm/CURRENT does not hold a number: {error}"),
            )
        })
    }

    pub(crate) fn folder(&self, generation: u64) -> PathBuf {
        self.root.join(generation.to_string())
    }

    /// Where a snapshot is received; removed at the next start if it is never installed.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("incoming.tmp")
    }

    /// Makes `received` the generation `next`, not yet current.
    pub(crate) fn adopt(&self, received: &Path, next: u64) -> io::Result<PathBuf> {
        let folder = self.folder(next);
        files::remove_folder(&folder)?;
        fs::rename(received, &folder)?;
        files::sync_folder(&self.root)?;
        Ok(folder)
    }

    /// The commit point of an install.
    pub(crate) fn switch(&self, next: u64) -> io::Result<()> {
        files::write_atomically(&self.root.join("CURRENT"), format!("{next}\n").as_bytes())
    }
}
