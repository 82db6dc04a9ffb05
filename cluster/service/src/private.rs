//! Folders into which only their owner may look, whoever may look into the folder around them.
//! Invariant: the folder around is never changed. It must not know what lies in them.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// Makes such a folder. One that is there already is made such a one too: somebody made it by hand, or an earlier version
/// of this program did.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
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
    }
}
