//! A folder to work in that goes in the end, beside what is worked on or made.
//! Invariant: nothing is removed but what a run of ours has made, or an empty folder of that name. All that is made lies
//! in a folder of its own, beside a mark that comes before it and goes after it; and only who holds the lock makes either
//! or removes it. So a mark that nobody holds is that of a run which was killed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::storage::files;

const MADE: &str = "made";
const MARK: &str = ".menagerie-work";

#[derive(Debug)]
pub(super) struct Work {
    folder: PathBuf,
    /// The folder's, for as long as this is open.
    _lock: File,
}

impl Work {
    /// Its name is the whole name of `path` with the ending behind it: with the ending in the place of another one, it
    /// might be that of `path` itself, or of something else that lies there.
    pub(super) fn beside(path: &Path, ending: &str) -> anyhow::Result<Self> {
        let name = path.file_name();
        let name = name.with_context(|| format!("{} does not end with a name", path.display()))?;
        let mut name = name.to_owned();
        name.push(format!(".{ending}"));
        let folder = path.with_file_name(name);
        remove_leftover(&folder)?;
        // For its owner alone: all that the store holds will be in it.
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("make {}", folder.display()))?;
        let lock = hold(&folder)?;
        // Before there is anything that clears: a mark that is there already is another's.
        let mark = folder.join(MARK);
        File::create_new(&mark).with_context(|| format!("make {}", mark.display()))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where to work. It is not there yet.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(MADE)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.folder) {
            tracing::warn!(%error, path = %self.folder.display(), "a folder that was worked in could not be removed");
        }
    }
}

/// Whether a run of ours works in this, or was killed there.
pub(super) fn is_worked_in(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.join(MARK).exists())
}

fn hold(folder: &Path) -> anyhow::Result<File> {
    let lock = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another run works in {}", folder.display()))?;
    Ok(lock)
}

/// Removes what a run has left that was killed, and refuses whatever else has this name.
fn remove_leftover(folder: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(folder).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    // Killed before it made its mark, or when that was gone: there is nothing in it. Not while another run holds it and
    // is about to mark it.
    if let Ok(_lock) = hold(folder)
        && fs::remove_dir(folder).is_ok()
    {
        return Ok(());
    }
    ensure!(
        folder.join(MARK).exists(),
        "{} is in the way, and is not what an interrupted run has left: move it away",
        folder.display()
    );
    let lock = hold(folder)?;
    // Whoever held it may have removed it just now, and the next one may have made another.
    let look = || anyhow::Ok((lock.metadata()?, fs::metadata(folder)?));
    let (held, there) = look().with_context(|| format!("look at {}", folder.display()))?;
    ensure!(
        (held.dev(), held.ino()) == (there.dev(), there.ino()),
        "another run works in {}",
        folder.display()
    );
    clear(folder).with_context(|| format!("remove {}", folder.display()))
}

/// The mark goes last, so that what a kill leaves of this is known for ours.
fn clear(folder: &Path) -> io::Result<()> {
    files::remove_folder(&folder.join(MADE))?;
    files::remove_file(&folder.join(MARK))?;
    // Fails where anybody else has put something in.
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn left_by_a_killed_run(folder: &Path) {
        fs::create_dir_all(folder.join(MADE).join("raft")).unwrap();
        fs::write(folder.join(MARK), "").unwrap();
    }

    #[test]
    fn it_is_private_and_goes_and_what_it_is_named_after_stays() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["n2", "n3.old", "n4.copying"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let work = Work::beside(&path, "copying").unwrap();
            fs::create_dir(work.path()).unwrap();
            let beside = folder.path().join(format!("{name}.copying"));
            assert_eq!(work.path().parent(), Some(beside.as_path()));
            let mode = fs::metadata(&beside).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            drop(work);
            assert!(path.exists() && !beside.exists(), "{name}");
        }
        for nameless in [folder.path().join(".."), PathBuf::from(".")] {
            let refused = Work::beside(&nameless, "copying").unwrap_err();
            assert!(
                refused.to_string().contains("does not end with a name"),
                "{refused:#}"
            );
        }
    }

    #[test]
    fn what_a_killed_run_has_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, beside) = (folder.path().join("n2"), folder.path().join("n2.copying"));
        left_by_a_killed_run(&beside);
        let work = Work::beside(&path, "copying").unwrap();
        assert!(!work.path().exists());
        drop(work);
        // Killed before it had its mark.
        fs::create_dir(&beside).unwrap();
        drop(Work::beside(&path, "copying").unwrap());
        assert!(!beside.exists());

        let kept = beside.join("notes");
        left_by_a_killed_run(&beside);
        fs::write(&kept, "somebody else's").unwrap();
        Work::beside(&path, "copying").unwrap_err();
        assert!(kept.exists());
        // Now there is no mark any more.
        let refused = Work::beside(&path, "copying").unwrap_err();
        assert!(refused.to_string().contains("move it away"), "{refused:#}");
        assert_eq!(fs::read(&kept).unwrap(), b"somebody else's");
    }

    #[test]
    fn nobody_removes_what_another_works_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n2");
        let work = Work::beside(&path, "copying").unwrap();
        fs::create_dir(work.path()).unwrap();
        let refused = Work::beside(&path, "copying").unwrap_err();
        assert!(refused.to_string().contains("another run works"), "{refused:#}");
        assert!(work.path().exists() && is_worked_in(&work.path()) && !is_worked_in(&path));
        drop(work);
        Work::beside(&path, "copying").unwrap();
    }
}
