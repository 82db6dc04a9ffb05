//! A log file that a process writes to, and the older ones it has become.
//! Invariant: rotating renames, so no line is lost: what is written in between goes to the renamed file.
//! It must not know what the lines say.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that has grown to this gets a new one in its place.
pub(crate) const BYTES_MAX: u64 = 8 << 20;
/// So many older files are kept: `n1.log.1` is the last one, `n1.log.3` the oldest.
pub(crate) const KEPT: u32 = 3;

pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Puts a new file in the place of one that has grown too large, and answers it.
pub(crate) fn rotate(path: &Path, bytes_max: u64) -> io::Result<Option<File>> {
    if std::fs::metadata(path)?.len() < bytes_max {
        return Ok(None);
    }
    for number in (1..KEPT).rev() {
        match std::fs::rename(older(path, number), older(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, older(path, 1))?;
    open(path).map(Some)
}

/// Goes on in a new file where the one that the output of this process goes to has grown too large.
pub(crate) fn rotate_own(path: &Path) -> io::Result<()> {
    if let Some(new) = rotate(path, BYTES_MAX)? {
        rustix::stdio::dup2_stdout(&new)?;
        rustix::stdio::dup2_stderr(&new)?;
    }
    Ok(())
}

fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_full_file_makes_room_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.log");
        for round in 0..6 {
            let mut log = open(&path).unwrap();
            write!(log, "round {round}").unwrap();
            assert!(rotate(&path, 8).unwrap().is_none());
            let new = rotate(&path, 7).unwrap().unwrap();
            // Whoever still holds the old one writes to the file under its new name.
            write!(log, "!").unwrap();
            assert_eq!(new.metadata().unwrap().len(), 0);
        }
        let text = |number| std::fs::read_to_string(older(&path, number)).unwrap();
        assert_eq!([text(1), text(2), text(3)], ["round 5!", "round 4!", "round 3!"]);
        assert!(!older(&path, 4).exists());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    }
}
