//! Backups that the leader makes by itself, and how many of them are kept.
//! Invariant: only files that are named like a backup are ever removed, and never the newest ones. When the next one
//! is due is read from the names, so that restarts and changes of leader neither skip nor crowd them; names of a time
//! that has not come count for nothing. None takes the room that a node needs itself.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use service::config::Config;
use service::time::now_ms;

use super::{Upkeep, free_bytes};
use crate::backup::mark_of;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After one that failed, the next is not tried at once.
const RETRY: Duration = Duration::from_secs(30);
/// No backup takes so long.
const LEFT_AFTER: Duration = Duration::from_hours(6);
/// The clocks of two nodes may be so far apart. What is named after a later time was named by one that was wrong.
const AHEAD_MAX_MS: u64 = 10 * 60 * 1000;

impl Upkeep {
    pub(super) async fn back_up_regularly(self: Arc<Self>, config: Config) {
        let folder = config.backup_folder();
        let mut said = false;
        while self.pause(LOOK_EVERY).await {
            if !self.leads() {
                continue;
            }
            let now_ms = now_ms();
            // A disk that hangs must not hold up what else this node does; its end waits for it as long as for any task.
            let target = folder.clone();
            let looking = self
                .tasks
                .spawn_blocking("backups", move || backups(&target, now_ms));
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

    async fn back_up(&self, folder: &Path, config: &Config) -> anyhow::Result<()> {
        // Somebody makes one by hand: that is soon over.
        let Some(turn) = self.store.backup_turn() else {
            return Ok(());
        };
        let (keep, free_bytes_min) = (config.backup.keep, config.limits.disk_free_bytes_min);
        let (target, node) = (folder.to_owned(), self.store.name().to_owned());
        let (desk, generation) = (Arc::clone(&self.desk), self.store.machine().generation());
        let prepare = move || {
            make_private(&target)?;
            remove_leftovers(&target, &node);
            // What is to go makes room for the next one.
            if let Err(error) = remove_old(&target, keep) {
                tracing::warn!(%error, "old backups stay behind");
            }
            let has_room = move |bytes: u64| {
                // What it is made from cannot be freed meanwhile, wherever it is written to.
                let is_full = desk.disk_full.load(Ordering::Relaxed);
                ensure!(!is_full, "the disk of this node is full");
                leaves_room(&target, bytes, free_bytes_min)
            };
            // How much it is exactly is known once all has been read, which is not to be done in vain time after time.
            has_room(generation.bytes())?;
            anyhow::Ok(has_room)
        };
        let has_room = self.tasks.spawn_blocking("backups", prepare).await??;
        let path = folder.join(name(now_ms()));
        let go_on = move |done: u64, all: u64| has_room(if done == 0 { all } else { 0 });
        let head = self.store.backup_to(turn, &path, go_on).await?;
        tracing::info!(store.revision = head.revision, path = %path.display(), "made a backup");
        let target = folder.to_owned();
        let removing = self
            .tasks
            .spawn_blocking("backups", move || remove_old(&target, keep));
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

fn name(made_ms: u64) -> String {
    format!("backup-{made_ms:015}.mng")
}

/// What is named like a backup.
struct Found {
    /// Time and place of each, oldest first.
    made: Vec<(u64, PathBuf)>,
    /// Of times that have not come. As the newest ones they would keep the next from being made, or from being kept.
    ahead: Vec<PathBuf>,
}

impl Found {
    /// 0 where there is none.
    fn newest_ms(&self) -> u64 {
        self.made.last().map_or(0, |(made_ms, _)| *made_ms)
    }
}

fn backups(folder: &Path, now_ms: u64) -> Found {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let made = entries.filter_map(|entry| {
        let name = entry.file_name();
        let made_ms = name.to_str()?.strip_prefix("backup-")?.strip_suffix(".mng")?;
        Some((made_ms.parse().ok()?, entry.path()))
    });
    let mut made: Vec<(u64, PathBuf)> = made.collect();
    made.sort();
    let latest_ms = now_ms.saturating_add(AHEAD_MAX_MS);
    let ahead = made.split_off(made.partition_point(|(made_ms, _)| *made_ms <= latest_ms));
    Found {
        made,
        ahead: ahead.into_iter().map(|(_, path)| path).collect(),
    }
}

/// When the newest of those in this folder was made, in milliseconds since 1970. A folder that cannot be read does not
/// tell that there is none.
pub fn newest_backup_ms(folder: &Path) -> io::Result<Option<u64>> {
    fs::read_dir(folder).map(drop)?;
    Ok(backups(folder, now_ms()).made.last().map(|(made_ms, _)| *made_ms))
}

/// What a process that was killed had begun: that of this node, which is at none now, and what is so old that no other
/// node is at it.
pub(crate) fn remove_leftovers(folder: &Path, node: &str) {
    let mark = mark_of(node);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(end) = name.to_str().and_then(end_of_half) else {
            continue;
        };
        let age = entry.metadata().and_then(|data| data.modified());
        let is_old = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_AFTER));
        if (is_old || end.starts_with(&mark))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "half a backup stays behind");
        }
    }
}

/// The part of its name that tells halves of the same backup apart, and whose each is.
fn end_of_half(name: &str) -> Option<&str> {
    let name = name.strip_prefix("backup-")?.strip_suffix(".tmp")?;
    name.rsplit('.').next()
}

fn remove_old(folder: &Path, keep: usize) -> io::Result<()> {
    let made = backups(folder, now_ms()).made;
    let surplus = made.len().saturating_sub(keep);
    made.iter()
        .take(surplus)
        .try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
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
    fn what_a_killed_process_had_begun_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] =
            ["backup-1.mng.n2-a.tmp", "backup-2.mng.n2-b.tmp"].map(|name| folder.path().join(name));
        let mine = folder.path().join("mine.tmp");
        let before = std::time::UNIX_EPOCH + Duration::from_millis(now_ms()) - 2 * LEFT_AFTER;
        for path in [&old, &new, &mine] {
            fs::write(path, "").unwrap();
        }
        for path in [&old, &mine] {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(before).unwrap();
        }
        remove_leftovers(folder.path(), "n1");
        assert_eq!([&old, &new, &mine].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn what_this_node_had_begun_goes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "backup-1.mng.n1-a.tmp",
            "backup-1.mng.n11-a.tmp",
            "backup-1.mng",
            "n1-a.tmp",
        ];
        let paths = names.map(|name| folder.path().join(name));
        for path in &paths {
            fs::write(path, "").unwrap();
        }
        remove_leftovers(folder.path(), "n1");
        assert_eq!(paths.map(|path| path.exists()), [false, true, true, true]);
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

    #[test]
    fn only_old_backups_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let others = ["notes.txt", "backup-x.mng", "backup-1.tmp", "mine.mng"];
        for name in others {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for made_ms in [5, 30, 1_700_000_000_000] {
            fs::write(folder.path().join(name(made_ms)), "").unwrap();
        }
        remove_old(folder.path(), 2).unwrap();
        let left: Vec<u64> = backups(folder.path(), now_ms())
            .made
            .into_iter()
            .map(|(made_ms, _)| made_ms)
            .collect();
        assert_eq!(left, [30, 1_700_000_000_000]);
        let newest = newest_backup_ms(folder.path()).unwrap();
        assert_eq!(newest, Some(1_700_000_000_000));
        assert!(others.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn one_of_a_time_that_has_not_come_stands_in_no_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let hour_ms = 3_600_000;
        let now = now_ms();
        // The second is of a node whose clock is a little ahead.
        let (old, new, ahead) = (now - hour_ms, now + 1000, now + hour_ms);
        for made_ms in [old, new, ahead] {
            fs::write(folder.path().join(name(made_ms)), "").unwrap();
        }
        let found = backups(folder.path(), now);
        assert_eq!(found.newest_ms(), new);
        assert_eq!(found.ahead, [folder.path().join(name(ahead))]);
        // It takes the place of none that is kept.
        remove_old(folder.path(), 1).unwrap();
        let left = [old, new, ahead].map(|made_ms| folder.path().join(name(made_ms)).exists());
        assert_eq!(left, [false, true, true]);
        // Its time comes.
        let later = backups(folder.path(), ahead);
        assert_eq!((later.newest_ms(), later.ahead.len()), (ahead, 0));
    }
}
