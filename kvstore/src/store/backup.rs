//! Backups of what this node has applied, one at a time: each holds the space of everything it is of.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::Store;
use crate::backup::{Head, Source, write_to_file};

/// As long as it lives, no other backup is made here.
pub type Turn = OwnedSemaphorePermit;

impl Store {
    /// `None` when one is being made.
    pub fn backup_turn(&self) -> Option<Turn> {
        Arc::clone(&self.inner.backups).try_acquire_owned().ok()
    }

    /// Everything that this node has applied by now.
    pub async fn backup(&self) -> anyhow::Result<Source> {
        let (machine, folder) = (Arc::clone(self.machine()), self.inner.folder.clone());
        let making = self
            .inner
            .tasks
            .spawn_blocking("backup", move || Source::of(&machine, &folder));
        making.await?
    }

    /// The same, into a file.
    pub async fn backup_to(&self, path: &Path) -> anyhow::Result<Head> {
        let source = self.backup().await?;
        let path = path.to_owned();
        let writing = self.inner.tasks.spawn_blocking("backup", move || {
            write_to_file(source, &path, &mut |_done, _all| {})
        });
        writing.await?
    }
}
