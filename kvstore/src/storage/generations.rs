//! Where the state machine's database lives: `sm/<generation>/`, named by `sm/CURRENT`.
//!
//! Installing a snapshot makes a new generation and switches `CURRENT` by one atomic rename: a crash
//! leaves the old state or the new one, never half of each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::damage::advise;
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
        generations.must_not_miss_current()?;
        let current = generations.current()?;
        for entry in fs::read_dir(&generations.root)? {
            let path = entry?.path();
            if path.is_dir() && path != generations.folder(current) {
                files::remove_folder(&path)?;
            }
        }
        Ok(generations)
    }

    /// The folder that counts, of a node that has stopped: nothing is tidied up.
    pub(crate) fn current_in(root: PathBuf) -> io::Result<PathBuf> {
        let generations = Self { root };
        Ok(generations.folder(generations.current()?))
    }

    /// Without `CURRENT` the first generation counts; where there is a later one instead, the file was lost.
    fn must_not_miss_current(&self) -> io::Result<()> {
        if self.root.join("CURRENT").exists() || self.folder(1).exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()) {
                let said = advise("files of this node's state", &"sm/CURRENT is missing");
                return Err(io::Error::new(io::ErrorKind::InvalidData, said));
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_whose_name_was_lost_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("sm");
        fs::create_dir_all(root.join("2")).expect("made");
        let error = Generations::open(root.clone()).expect_err("CURRENT is missing");
        assert!(error.to_string().contains("sm/CURRENT is missing"), "{error}");
        assert!(root.join("2").exists());
        // A first install that did not come to its end.
        fs::create_dir_all(root.join("1")).expect("made");
        let generations = Generations::open(root.clone()).expect("it opens");
        assert_eq!(generations.current().expect("read"), 1);
        assert!(!root.join("2").exists());
    }
}
