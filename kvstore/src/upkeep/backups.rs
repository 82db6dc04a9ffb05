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
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use service::config::Config;
use service::private;
use service::time::now_ms;

use super::{Upkeep, free_bytes};
use crate::store::Turn;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After one that failed, the next is not tried at once.
const RETRY: Duration = Duration::from_secs(30);

/// Of a backup that is due and has to wait, since another is being made.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    said: bool,
}

impl Waiting {
    /// True once, when it has had to wait for so long.
    fn is_long(&mut self, period: Duration) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        !self.said && {
            self.said = since.elapsed() >= period;
            self.said
        }
    }
}

impl Upkeep {
    pub(super) async fn back_up_regularly(self: Arc<Self>, config: Config) {
        let path = config.backup_folder();
        let every = Duration::from_secs(config.backup.every_s);
        let (mut said, mut waiting) = (false, Waiting::default());
        while self.pause(LOOK_EVERY).await {
            if !self.leads() {
                waiting = Waiting::default();
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
            if Duration::from_millis(now_ms.saturating_sub(found.newest_ms())) < every {
                waiting = Waiting::default();
                continue;
            }
            match self.back_up_in_turn(&folder, &config).await {
                Ok(true) => waiting = Waiting::default(),
                Ok(false) => {
                    if waiting.is_long(every / 2) {
                        tracing::warn!(
                            "a backup has been due for long, and is not made while somebody downloads one from this node: \
                             see that `menagerie kv snapshot`, or whoever asked for /v1/snapshot, ends"
                        );
                    }
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "no backup could be made");
                    if !self.pause(RETRY).await {
                        return;
                    }
                }
            }
        }
    }

    /// False when none was made since somebody makes one by hand, which may take them long.
    async fn back_up_in_turn(&self, folder: &BackupFolder, config: &Config) -> anyhow::Result<bool> {
        let Some(turn) = self.store.backup_turn() else {
            return Ok(false);
        };
        let made = self.back_up(turn, folder, config).await;
        let what = if made.is_ok() { "backup" } else { "backup-failed" };
        self.desk.metrics.snapshots.with_label_values(&[what]).inc();
        made.map(|()| true)
    }

    async fn back_up(&self, turn: Turn, folder: &BackupFolder, config: &Config) -> anyhow::Result<()> {
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

/// Each backup in it holds everything, so only its owner may look into the folder. Its name is on the disk before that of
/// a backup counts.
fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    private::sync_name(folder)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::raft::bare::{Bare, calm};

    #[tokio::test]
    async fn a_backup_that_waits_for_its_turn_is_neither_made_nor_counted() {
        let nodes = Bare::cluster(1).await;
        let (desk, data) = (&nodes[0].desk, nodes[0].folder.path());
        let mut config = calm();
        config.limits.disk_free_bytes_min = 0;
        let upkeep = Upkeep::over(&nodes[0]);
        let folder = BackupFolder::of(&data.join("backups"), "one");
        let counted = |what: &str| desk.metrics.snapshots.with_label_values(&[what]).get();
        let turn = upkeep.store.backup_turn().unwrap();
        for _again in 0..2 {
            assert!(!upkeep.back_up_in_turn(&folder, &config).await.unwrap());
        }
        assert!(!folder.path.exists());
        assert_eq!((counted("backup"), counted("backup-failed")), (0, 0));
        drop(turn);
        assert!(upkeep.back_up_in_turn(&folder, &config).await.unwrap());
        assert!(folder.look(now_ms()).newest_ms() > 0);
        assert_eq!((counted("backup"), counted("backup-failed")), (1, 0));
        drop(upkeep);
        for node in nodes {
            node.end().await;
        }
    }

    #[test]
    fn that_one_has_to_wait_for_long_is_said_once() {
        let mut waiting = Waiting::default();
        assert!(!waiting.is_long(Duration::from_hours(1)));
        let said = [0, 1].map(|_| waiting.is_long(Duration::ZERO));
        assert_eq!(said, [true, false]);
    }

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
