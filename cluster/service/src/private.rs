//! Folders into which only their owner may look, whoever may look into the folder around them.
//! Invariant: the folder around is never changed, and has their names on the disk before anything is put into them. It
//! must not know what lies in them.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes such a folder, and those around it that are missing; their names are on the disk by then. One that is there
/// already is made such a one too: somebody made it by hand, or an earlier version of this program did.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing_around = folder.ancestors().skip(1).take_while(|around| !around.exists());
    let missing_around = missing_around.count();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    take_from_others(folder)?;
    // Also of one that is there: who made it may have died before this.
    folder
        .ancestors()
        .take(1 + missing_around)
        .try_for_each(sync_name)
}

/// Brings the name of a folder to the disk. Until then all that was synced in it may be lost with the power.
pub fn sync_name(folder: &Path) -> io::Result<()> {
    let around = match folder.parent() {
        None => return Ok(()),
        Some(around) if around.as_os_str().is_empty() => Path::new("."),
        Some(around) => around,
    };
    match File::open(around).and_then(|around| around.sync_all()) {
        // Whoever may not look into it has not made anything there, and need not bring it to the disk.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

fn take_from_others(folder: &Path) -> io::Result<()> {
    let mode = fs::metadata(folder)?.permissions().mode() & 0o777;
    let for_others = mode & 0o077;
    if for_others == 0 {
        return Ok(());
    }
    match fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        // It is somebody else's, who lets our group write to it, as where disks are handed to containers.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::warn!(
                folder = %folder.display(),
                mode = format!("{mode:04o}"),
                "others may look into this folder, and only its owner can change that: let it belong to the user of this \
                 process, with mode 0700"
            );
            Ok(())
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_looks_into_a_folder_and_the_one_around_it_stays_as_it_is() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("n1");
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        set(around.path(), 0o755);
        make_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700, "one that was made");
        for before in [0o755, 0o750, 0o701] {
            set(&folder, before);
            make_folder(&folder).unwrap();
            assert_eq!(mode(&folder), 0o700, "one that was there as {before:o}");
        }
        assert_eq!(mode(around.path()), 0o755);
        // With those between.
        let below = folder.join("a").join("b");
        make_folder(&below).unwrap();
        assert_eq!((mode(&below), mode(&folder.join("a"))), (0o700, 0o700));
    }

    #[test]
    fn a_name_is_brought_to_the_disk_wherever_it_stands() {
        let around = tempfile::tempdir().unwrap();
        for folder in [
            around.path(),
            Path::new("relative"),
            Path::new("/"),
            Path::new(""),
        ] {
            sync_name(folder).unwrap();
        }
        let nowhere = around.path().join("none").join("n1");
        assert_eq!(sync_name(&nowhere).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
