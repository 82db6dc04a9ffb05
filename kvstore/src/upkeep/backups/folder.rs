//! The folder that one cluster keeps the backups in that it makes by itself. Others may use the same one.
//! Invariant: only files that are named like backups of this cluster count or are removed, and never the newest ones.
//! One of a time that has not come counts for nothing. Older versions did not name the cluster, or by what its id begins
//! with: such a file may be anybody's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use crate::backup::mark_of;
use crate::raft::identity::is_random_name;

/// So much of a random id tells a cluster from those that share a folder with it.
const CLUSTER_CHARS: usize = 8;
/// No backup takes so long.
const LEFT_AFTER: Duration = Duration::from_hours(6);
/// The clocks of two nodes may be so far apart. What is named after a later time was named by one that was wrong.
const AHEAD_MAX_MS: u64 = 10 * 60 * 1000;

#[derive(Clone, Debug)]
pub(crate) struct BackupFolder {
    pub(super) path: PathBuf,
    /// What all names of this cluster's begin with.
    prefix: String,
}

/// What is named like a backup.
pub(super) struct Found {
    /// Time and place of each, oldest first.
    made: Vec<(u64, PathBuf)>,
    /// Of times that have not come. As the newest ones they would keep the next from being made, or from being kept.
    pub(super) ahead: Vec<PathBuf>,
}

impl Found {
    /// 0 where there is none.
    pub(super) fn newest_ms(&self) -> u64 {
        self.made.last().map_or(0, |(made_ms, _)| *made_ms)
    }
}

impl BackupFolder {
    pub(crate) fn of(path: &Path, cluster_id: &str) -> Self {
        Self {
            path: path.to_owned(),
            prefix: format!("backup-{}-", name_of(cluster_id)),
        }
    }

    /// The backup of this time.
    pub(super) fn file(&self, made_ms: u64) -> PathBuf {
        self.path.join(format!("{}{made_ms:015}.mng", self.prefix))
    }

    pub(super) fn look(&self, now_ms: u64) -> Found {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let made = entries.filter_map(|entry| {
            let name = entry.file_name();
            let made_ms = name.to_str()?.strip_prefix(&self.prefix)?.strip_suffix(".mng")?;
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

    /// What a process that was killed had begun: that of this node, which is at none now, and what is so old that no
    /// other node is at it, of whichever cluster.
    pub(crate) fn remove_leftovers(&self, node: &str) {
        let mark = mark_of(node);
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let Some((name, end)) = name.to_str().and_then(half) else {
                continue;
            };
            let age = entry.metadata().and_then(|data| data.modified());
            let is_old = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_AFTER));
            let is_own = name.starts_with(&self.prefix) && end.starts_with(&mark);
            if (is_old || is_own)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(%error, "half a backup stays behind");
            }
        }
    }

    pub(super) fn remove_old(&self, keep: usize) -> io::Result<()> {
        let made = self.look(now_ms()).made;
        let surplus = made.len().saturating_sub(keep);
        made.iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// What stands for a cluster in the names of its backups. An id that was told by a user may begin as another does, and
/// not all that can be told makes a name.
fn name_of(cluster_id: &str) -> String {
    if is_random_name(cluster_id) {
        return cluster_id[..CLUSTER_CHARS].to_owned();
    }
    let is_plain = cluster_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain && (1..=CLUSTER_CHARS).contains(&cluster_id.len()) {
        return cluster_id.to_owned();
    }
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(cluster_id).into();
    format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
}

/// Of half a backup the name that it was to get, and the part that tells halves of the same one apart, and whose each
/// is.
fn half(name: &str) -> Option<(&str, &str)> {
    let name = name.strip_suffix(".tmp")?;
    let (name, end) = name.rsplit_once('.')?;
    name.starts_with("backup-").then_some((name, end))
}

/// When the newest of this cluster in this folder was made, in milliseconds since 1970. A folder that cannot be read
/// does not tell that there is none.
pub fn newest_backup_ms(folder: &Path, cluster_id: &str) -> io::Result<Option<u64>> {
    fs::read_dir(folder).map(drop)?;
    let made = BackupFolder::of(folder, cluster_id).look(now_ms()).made;
    Ok(made.last().map(|(made_ms, _)| *made_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn write_all<const N: usize>(folder: &Path, names: [&str; N]) -> [PathBuf; N] {
        let paths = names.map(|name| folder.join(name));
        for path in &paths {
            fs::write(path, "").unwrap();
        }
        paths
    }

    #[test]
    fn what_a_killed_process_had_begun_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let paths = write_all(
            folder.path(),
            [
                "backup-01234567-1.mng.n2-a.tmp",
                "backup-fedcba98-1.mng.n1-a.tmp",
                "backup-1.mng.n1-a.tmp",
                "backup-01234567-2.mng.n2-b.tmp",
                "mine.tmp",
            ],
        );
        let before = std::time::UNIX_EPOCH + Duration::from_millis(now_ms()) - 2 * LEFT_AFTER;
        for path in [&paths[0], &paths[1], &paths[2], &paths[4]] {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(before).unwrap();
        }
        BackupFolder::of(folder.path(), ONE).remove_leftovers("n1");
        assert_eq!(paths.map(|path| path.exists()), [false, false, false, true, true]);
    }

    #[test]
    fn what_this_node_had_begun_goes_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = write_all(
            folder.path(),
            [
                "backup-01234567-1.mng.n1-a.tmp",
                "backup-01234567-1.mng.n11-a.tmp",
                "backup-fedcba98-1.mng.n1-a.tmp",
                "backup-1.mng.n1-a.tmp",
                "backup-01234567-1.mng",
                "n1-a.tmp",
            ],
        );
        BackupFolder::of(folder.path(), ONE).remove_leftovers("n1");
        assert_eq!(
            paths.map(|path| path.exists()),
            [false, true, true, true, true, true]
        );
    }

    #[test]
    fn only_old_backups_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let others = write_all(
            folder.path(),
            [
                "notes.txt",
                "backup-01234567-x.mng",
                "backup-01234567-1.tmp",
                "backup-000001700000001.mng",
                "mine.mng",
            ],
        );
        let backups = BackupFolder::of(folder.path(), ONE);
        for made_ms in [5, 30, 1_700_000_000_000] {
            fs::write(backups.file(made_ms), "").unwrap();
        }
        backups.remove_old(2).unwrap();
        let left = backups.look(now_ms()).made.into_iter();
        let left: Vec<u64> = left.map(|(made_ms, _)| made_ms).collect();
        assert_eq!(left, [30, 1_700_000_000_000]);
        let newest = newest_backup_ms(folder.path(), ONE).unwrap();
        assert_eq!(newest, Some(1_700_000_000_000));
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn two_clusters_that_share_a_folder_take_nothing_of_each_other_for_theirs() {
        for ids in [
            [ONE, OTHER],
            ["menagerie-eu", "menagerie-us"],
            ["20261201-eu", "20261201"],
            ["0123456789abcdef", "01234567fedcba98"],
            ["eu-1", "eu1"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let [one, other] = ids.map(|id| BackupFolder::of(folder.path(), id));
            for made_ms in [10, 30] {
                fs::write(one.file(made_ms), "").unwrap();
            }
            assert_eq!(other.look(now_ms()).newest_ms(), 0, "it has to make one: {ids:?}");
            assert_eq!(newest_backup_ms(folder.path(), ids[1]).unwrap(), None, "{ids:?}");
            for made_ms in [20, 40] {
                fs::write(other.file(made_ms), "").unwrap();
            }
            assert_eq!(one.look(now_ms()).newest_ms(), 30, "{ids:?}");
            one.remove_old(1).unwrap();
            let left = [one.file(10), other.file(20), one.file(30), other.file(40)];
            assert_eq!(
                left.map(|path| path.exists()),
                [false, true, true, true],
                "{ids:?}"
            );
        }
    }

    #[test]
    fn random_ids_and_short_words_stand_in_names_and_others_by_their_hash() {
        for (id, name) in [(ONE, "01234567"), ("zoo", "zoo"), ("menagerie-eu", "5b08c504")] {
            let file = BackupFolder::of(Path::new("backups"), id).file(1);
            let expected = format!("backups/backup-{name}-000000000000001.mng");
            assert_eq!(file, Path::new(&expected));
        }
        assert!(is_random_name(&crate::raft::identity::random_name()));
    }

    #[test]
    fn no_id_leads_out_of_the_folder() {
        let file = BackupFolder::of(Path::new("backups"), "../a b/c").file(1);
        assert_eq!(file, Path::new("backups/backup-b716564e-000000000000001.mng"));
    }

    #[test]
    fn one_of_a_time_that_has_not_come_stands_in_no_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let backups = BackupFolder::of(folder.path(), ONE);
        let hour_ms = 3_600_000;
        let now = now_ms();
        // The second is of a node whose clock is a little ahead.
        let (old, new, ahead) = (now - hour_ms, now + 1000, now + hour_ms);
        for made_ms in [old, new, ahead] {
            fs::write(backups.file(made_ms), "").unwrap();
        }
        let found = backups.look(now);
        assert_eq!(found.newest_ms(), new);
        assert_eq!(found.ahead, [backups.file(ahead)]);
        // It takes the place of none that is kept.
        backups.remove_old(1).unwrap();
        let left = [old, new, ahead].map(|made_ms| backups.file(made_ms).exists());
        assert_eq!(left, [false, true, true]);
        // Its time comes.
        let later = backups.look(ahead);
        assert_eq!((later.newest_ms(), later.ahead.len()), (ahead, 0));
    }
}
