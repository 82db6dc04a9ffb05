//! Backups that the leader makes by itself.
//! Invariant: when the next one is due is read from the names of those that are there (`folder`), so that restarts and
//! changes of leader neither skip nor crowd them. None takes the room that a node needs itself.

mod folder;

pub(crate) use folder::BackupFolder;
pub use folder::newest_backup_ms;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use service::config::Config;
use service::time::now_ms;

use super::{Upkeep, free_bytes};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After one that failed, the next is not tried at once.
const RETRY: Duration = Duration::from_secs(30);

impl Upkeep {
    pub(super) async fn back_up_regularly(self: Arc<Self>, config: Config) {
        let path = config.backup_folder();
        let mut said = false;
        while self.pause(LOOK_EVERY).await {
            if !self.leads() {
                continue;
            }
            // Whoever leads belongs to one.
            let Some(cluster_id) = self.desk.peers.trust().identity.cluster_id() else {
                continue;
            };
            let (folder, now_ms) = (BackupFolder::of(&path, &cluster_id), now_ms());
            // A disk that hangs must not hold up what else this node does; its end waits for it as long as for any task.
            let target = folder.clone();
            let looking = self.tasks.spawn_blocking("backups", move || target.look(now_ms));
            let Ok(found) = looking.await else {
                continue;
            };
            if let Some(path) = found.ahead.first()
                && !said
            {
                said = true;
                tracing::warn!(
                    path = %path.display(),
                    "this backup is named after a time that has not come, until which it does not count"
                );
            }
            if now_ms.saturating_sub(found.newest_ms()) < config.backup.every_s * 1000 {
                continue;
            }
            match self.back_up(&folder, &config).await {
                Ok(()) => self.desk.metrics.snapshots.with_label_values(&["backup"]).inc(),
                Err(error) => {
                    self.desk
                        .metrics
                        .snapshots
                        .with_label_values(&["backup-failed"])
                        .inc();
                    tracing::error!(error = format!("{error:#}"), "no backup could be made");
                    if !self.pause(RETRY).await {
                        return;
                    }
                }
            }
        }
    }

    async fn back_up(&self, folder: &BackupFolder, config: &Config) -> anyhow::Result<()> {
        // Somebody makes one by hand: that is soon over.
        let Some(turn) = self.store.backup_turn() else {
            return Ok(());
        };
        let (keep, free_bytes_min) = (config.backup.keep, config.limits.disk_free_bytes_min);
        let (target, node) = (folder.clone(), self.store.name().to_owned());
        let (desk, generation) = (Arc::clone(&self.desk), self.store.machine().generation());
        let prepare = move || {
            make_private(&target.path)?;
            target.remove_leftovers(&node);
            // What is to go makes room for the next one.
            if let Err(error) = target.remove_old(keep) {
                tracing::warn!(%error, "old backups stay behind");
            }
            let has_room = move |bytes: u64| {
                // What it is made from cannot be freed meanwhile, wherever it is written to.
                let is_full = desk.disk_full.load(Ordering::Relaxed);
                ensure!(!is_full, "the disk of this node is full");
                leaves_room(&target.path, bytes, free_bytes_min)
            };
            // How much it is exactly is known once all has been read, which is not to be done in vain time after time.
            has_room(generation.bytes())?;
            anyhow::Ok(has_room)
        };
        let has_room = self.tasks.spawn_blocking("backups", prepare).await??;
        let path = folder.file(now_ms());
        let go_on = move |done: u64, all: u64| has_room(if done == 0 { all } else { 0 });
        let head = self.store.backup_to(turn, &path, go_on).await?;
        tracing::info!(store.revision = head.revision, path = %path.display(), "made a backup");
        let target = folder.clone();
        let removing = self
            .tasks
            .spawn_blocking("backups", move || target.remove_old(keep));
        Ok(removing.await??)
    }
}

/// Refuses to take so much of the disk that a node there would not have what it needs itself.
fn leaves_room(folder: &Path, bytes: u64, free_bytes_min: u64) -> anyhow::Result<()> {
    let free = free_bytes(folder).with_context(|| format!("look how full {} is", folder.display()))?;
    ensure!(
        free >= bytes.saturating_add(free_bytes_min),
        "there is no room in {}: of the {free} bytes that are free a backup takes {bytes} more, and {free_bytes_min} \
         must stay free. Make room, or lower backup.keep.",
        folder.display()
    );
    Ok(())
}

/// Each backup in it holds everything, so only its owner may look into the folder.
fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_its_owner_looks_into_the_folder() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("backups");
        make_private(&folder).unwrap();
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // The next one finds it there.
        make_private(&folder).unwrap();
    }

    #[test]
    fn a_backup_leaves_the_room_that_a_node_needs() {
        let folder = tempfile::tempdir().unwrap();
        // No disk is so large.
        let most = u64::MAX;
        leaves_room(folder.path(), 0, 0).unwrap();
        for (bytes, free_bytes_min) in [(most, 0), (0, most), (most, most)] {
            let refused = leaves_room(folder.path(), bytes, free_bytes_min).unwrap_err();
            assert!(refused.to_string().contains("there is no room"), "{refused}");
        }
        // What cannot be measured may be full.
        assert!(leaves_room(&folder.path().join("missing"), 0, 0).is_err());
    }
}
