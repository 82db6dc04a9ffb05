//! A copy of a member's folder, to look into and to work on.
//! Invariant: the folder itself is only read, by whatever name it is called, and no process uses it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use super::work::{Work, is_worked_in};
use crate::machine::host::{Machine, MachineSettings};
use crate::storage::damage;
use crate::storage::log_db::LogDb;

const LOG_MEMTABLE_BYTES: usize = 16 << 20;

/// A copy of a member's folder beside it, which goes in the end.
pub(super) struct Copy {
    work: Work,
    /// What its mark of damage said. The copy has none, since nothing opens a folder that has one.
    pub(super) damage: Option<String>,
    /// That of the member: whoever starts it meanwhile would have the copy mix two moments.
    _lock: Option<File>,
}

impl Copy {
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        // By its own name: `.`, `..` and a link say neither what to call the copy nor where tables can be linked.
        let folder = fs::canonicalize(folder).with_context(|| format!("find {}", folder.display()))?;
        ensure!(
            folder.join("raft").is_dir() && folder.join("sm").is_dir(),
            "{} is not the folder of a node",
            folder.display()
        );
        ensure!(
            !is_worked_in(&folder),
            "{} is a copy that an interrupted run has left, and may lack anything: name the folder that it is of",
            folder.display()
        );
        let lock = refuse_running(&folder)?;
        let work = Work::beside(&folder, "recovering")?;
        copy_folder(&folder, &work.path()).with_context(|| format!("copy {}", folder.display()))?;
        let damage = damage::take_mark(&work.path()).context("read the mark of damage")?;
        Ok(Self {
            work,
            damage,
            _lock: lock,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.work.path()
    }

    /// The log, and the state with the snapshot that the member had received last.
    pub(super) fn open(&self) -> anyhow::Result<(LogDb, Arc<Machine>)> {
        let log =
            LogDb::open(&self.path().join("raft").join("db"), LOG_MEMTABLE_BYTES).context("open the log")?;
        let machine = Machine::open(&self.path(), MachineSettings::OF_A_TOOL, Arc::default())
            .context("open the state")?;
        machine
            .finish_install()
            .context("install the snapshot that it had received")?;
        Ok((log, machine))
    }
}

/// Keeps it from being started for as long as the answer is kept. One that never was, or was copied without its lock,
/// has none, and gets none here.
fn refuse_running(folder: &Path) -> anyhow::Result<Option<File>> {
    let Ok(lock) = File::open(folder.join("LOCK")) else {
        return Ok(None);
    };
    let free = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    ensure!(free.is_ok(), "a process uses {}; stop it first", folder.display());
    Ok(Some(lock))
}

/// Tables never change, so they are linked where that is possible.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&source, &target)?;
            continue;
        }
        let table = source.extension().is_some_and(|extension| extension == "sst");
        if !table || fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::folder;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_survivor_is_left_as_it_is_by_whatever_name_it_goes() {
        for name in ["n2", "n2.old", "n2.recovering"] {
            let folder = tempfile::tempdir().unwrap();
            let node = folder.path().join(name);
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&node, &link).unwrap();
            for part in ["raft", "sm"] {
                fs::create_dir_all(node.join(part)).unwrap();
                fs::write(node.join(part).join("content"), part).unwrap();
            }
            for called in [node.clone(), node.join("."), node.join("raft").join(".."), link] {
                let copy = Copy::of(&called).unwrap();
                assert_eq!(fs::read(copy.path().join("sm/content")).unwrap(), b"sm");
                drop(copy);
                assert_eq!(fs::read(node.join("raft/content")).unwrap(), b"raft");
                assert_eq!(names(folder.path()), ["link", name], "{}", called.display());
            }
        }
    }

    #[test]
    fn a_survivor_does_not_run_while_it_is_copied() {
        let above = tempfile::tempdir().unwrap();
        let node = above.path().join("n2");
        for part in ["raft", "sm"] {
            fs::create_dir_all(node.join(part)).unwrap();
        }
        let running = folder::lock(&node).unwrap();
        let refused = Copy::of(&node).err().unwrap();
        assert!(refused.to_string().contains("stop it first"), "{refused:#}");
        drop(running);
        let copy = Copy::of(&node).unwrap();
        let refused = folder::lock(&node).unwrap_err();
        assert!(
            refused.to_string().contains("another process uses"),
            "{refused:#}"
        );
        drop(copy);
        folder::lock(&node).unwrap();
    }

    #[test]
    fn half_a_copy_is_no_survivor() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::beside(&folder.path().join("n2"), "recovering").unwrap();
        for part in ["raft", "sm"] {
            fs::create_dir_all(work.path().join(part)).unwrap();
        }
        let refused = Copy::of(&work.path()).err().unwrap();
        assert!(refused.to_string().contains("interrupted run"), "{refused:#}");
        assert_eq!(names(&work.path()), ["raft", "sm"]);
    }
}
