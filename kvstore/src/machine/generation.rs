//! One database folder of the state machine: the one that counts, or one that somebody still reads.
//!
//! Invariant: a folder that was replaced goes with its last reader, and not before. It must not know what replaces it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gaps::Gaps;
use crate::storage::files;
use crate::storage::machine_db::MachineDb;

/// One database folder. When it has been replaced, its last reader removes it.
pub struct Generation {
    pub(super) number: u64,
    db: Option<MachineDb>,
    pub(crate) gaps: Gaps,
    folder: PathBuf,
    doomed: AtomicBool,
}

impl Generation {
    pub(super) fn new(number: u64, db: MachineDb, folder: PathBuf) -> Self {
        Self {
            number,
            gaps: db.gaps(),
            db: Some(db),
            folder,
            doomed: AtomicBool::new(false),
        }
    }

    pub(crate) fn db(&self) -> &MachineDb {
        self.db
            .as_ref()
            .expect("the database is taken only when the generation is dropped")
    }

    /// What its files take on disk, those among them that are soon to go.
    pub(crate) fn bytes(&self) -> u64 {
        files::folder_bytes(&self.folder)
    }

    /// Another one has taken its place.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // Closed before its files go.
        drop(self.db.take());
        if *self.doomed.get_mut()
            && let Err(error) = files::remove_folder(&self.folder)
        {
            tracing::warn!(%error, "a replaced database folder stays behind until the next start");
        }
    }
}
