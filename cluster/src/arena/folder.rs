//! A folder that goes when the run is over.
//! Invariant: it is made new, for this process alone, on the disk that the data folder is on, since a measured sync
//! must be one of a real disk.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Beside the data folder.
    pub(crate) fn beside(data: &Path) -> anyhow::Result<Self> {
        Self::make(data.with_file_name(format!(".arena-{}", std::process::id())))
    }

    /// Inside the data folder, which need not be there yet.
    pub(crate) fn inside(data: &Path, name: &str) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .with_context(|| format!("make {}", data.display()))?;
        Self::make(data.join(format!("{name}-{}", std::process::id())))
    }

    fn make(path: PathBuf) -> anyhow::Result<Self> {
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left says so by its name, and nothing else depends on it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
