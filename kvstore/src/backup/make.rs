//! A backup of a running node: a checkpoint, which is hard links, and its bytes piece by piece.
//! Invariant: writes go on meanwhile; the checkpoint is removed however this ends; a table that is no longer what it
//! was ends the stream with an error, and what was written of it is no backup.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use service::time::now_ms;
use sha2::{Digest as _, Sha256};

use super::Progress;
use super::format::{END, END_BYTES, Head, PIECE_BYTES};
use crate::machine::host::Machine;
use crate::machine::snapshot::{self, ManifestFile};
use crate::raft::identity::random_name;
use crate::storage::damage::Damage;
use crate::storage::files;
use crate::storage::machine_db::{MachineDb, MachineMemory, TABLES_OF_STATE};

/// Gives the bytes of a backup in order.
pub struct Source {
    pub head: Head,
    beginning: Option<Vec<u8>>,
    files: VecDeque<ManifestFile>,
    /// The first of `files`, once something of it was read. No other is open: there may be very many, and whoever takes
    /// the backup may take it slowly.
    open: Option<File>,
    /// Bytes and checksum of what was read of it.
    read: (u64, u32),
    all: Sha256,
    ended: bool,
    damage: Arc<Damage>,
    checkpoint: Checkpoint,
}

/// A folder that goes when nobody reads from it any more.
struct Checkpoint(PathBuf);

impl Drop for Checkpoint {
    fn drop(&mut self) {
        if let Err(error) = files::remove_folder(&self.0) {
            // The next start removes it.
            tracing::warn!(%error, "the folder of a backup could not be removed");
        }
    }
}

impl Source {
    /// Takes a checkpoint of what this node has applied.
    pub(crate) fn of(machine: &Machine, folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("snapshots").join(format!("{}.tmp", random_name()));
        let checkpoint = Checkpoint(path);
        machine
            .generation()
            .db()
            .checkpoint(&checkpoint.0)
            .context("take a checkpoint")?;
        let memory = MachineMemory {
            memtable_bytes: 1 << 20,
            cache_bytes: 1 << 20,
            records: 0,
        };
        let db = MachineDb::open_read_only(&checkpoint.0, memory, Arc::clone(&machine.damage))?;
        let state = db.state();
        let last_log = db.applied().context("nothing was ever applied here")?;
        drop(db);
        let described = snapshot::describe(&checkpoint.0).context("read the checkpoint")?;
        let head = Head {
            cluster_id: state.cluster_id,
            revision: state.revision,
            keys: state.keys,
            hash: format!("{:032x}", state.hash),
            last_log: serde_json::from_slice(&last_log).context("read the log id")?,
            made_ms: now_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: described,
        };
        Ok(Self {
            beginning: Some(head.encode()?),
            files: head.files.clone().into(),
            open: None,
            read: (0, 0),
            all: Sha256::new(),
            ended: false,
            damage: Arc::clone(&machine.damage),
            head,
            checkpoint,
        })
    }

    /// How many bytes there are in all.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.head.encode()?.len() as u64 + self.head.files_bytes() + END_BYTES)
    }

    /// The next piece; `None` after the last.
    pub fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(beginning) = self.beginning.take() {
            self.all.update(&beginning);
            return Ok(Some(beginning));
        }
        while let Some(described) = self.files.front() {
            let file = match &mut self.open {
                Some(file) => file,
                none => none.insert(File::open(self.checkpoint.0.join(&described.name))?),
            };
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            let (bytes, crc) = self.read;
            if piece.is_empty() {
                if (bytes, crc) != (described.bytes, described.crc32c) {
                    let text = format!("{} does not match its checksum", described.name);
                    self.damage.report_corruption(TABLES_OF_STATE, &text);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                self.files.pop_front();
                self.open = None;
                self.read = (0, 0);
                continue;
            }
            self.read = (bytes + piece.len() as u64, crc32c::crc32c_append(crc, &piece));
            self.all.update(&piece);
            return Ok(Some(piece));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        let mut end = std::mem::take(&mut self.all).finalize().to_vec();
        end.extend(END);
        Ok(Some(end))
    }
}

/// A file beside the one that is to be; it goes unless it gets that one's name, since half a backup is of no use.
struct Beside(PathBuf);

impl Beside {
    /// Its name is nobody else's, and only its owner may read it: everything is in it.
    fn make(path: &Path, mark: &str) -> anyhow::Result<(Self, File)> {
        let mut name = path.file_name().context("a backup needs a name")?.to_owned();
        name.push(format!(".{mark}{}.tmp", random_name()));
        let beside = path.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options
            .open(&beside)
            .with_context(|| format!("make {}", beside.display()))?;
        Ok((Self(beside), file))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Once it has got the other name there is nothing left under this one.
        if let Err(error) = files::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "half a backup could not be removed");
        }
    }
}

/// What stands before the random part in the name of a node's half backup, so that it knows it for its own again.
pub(crate) fn mark_of(node: &str) -> String {
    format!("{node}-")
}

/// Writes beside, syncs, renames: a file that has its name is whole.
pub fn write_to_file(source: Source, path: &Path, progress: Progress<'_>) -> anyhow::Result<Head> {
    write_while(source, path, "", &mut |done, all| {
        progress(done, all);
        Ok(())
    })
}

/// The same, for as long as `go_on` has nothing against it: it is asked before anything is made, and behind each piece,
/// and told how many bytes of how many are done.
pub(crate) fn write_while(
    mut source: Source,
    path: &Path,
    mark: &str,
    go_on: &mut dyn FnMut(u64, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Head> {
    let all = source.bytes()?;
    go_on(0, all)?;
    let (beside, mut file) = Beside::make(path, mark)?;
    let mut done = 0;
    while let Some(piece) = source.next_piece()? {
        file.write_all(&piece)
            .with_context(|| format!("write {}", beside.0.display()))?;
        done += piece.len() as u64;
        go_on(done, all)?;
    }
    file.sync_all().context("sync the backup")?;
    std::fs::rename(&beside.0, path).with_context(|| format!("name {}", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    files::sync_folder(folder.unwrap_or(Path::new("."))).context("sync the folder")?;
    Ok(source.head)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use anyhow::ensure;

    use super::*;
    use crate::command::Action;
    use crate::machine::small::{entry, opened};
    use crate::raft::start::root_rules;

    /// A member that has a token, and so something to back up.
    fn member(node: &Path) -> Arc<Machine> {
        std::fs::create_dir(node).unwrap();
        let machine = opened(node);
        let token = Action::TokenPut {
            name: "guest".to_owned(),
            hash: [7; 32],
            rules: root_rules(),
        };
        machine.apply(vec![entry(1, 1, [token])]).unwrap();
        machine
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_backup_holds_one_file_at_a_time_however_many_there_are() {
        let above = tempfile::tempdir().unwrap();
        let node = above.path().join("node");
        let machine = member(&node);
        let mut source = Source::of(&machine, &node).unwrap();
        assert!(source.head.files.len() > 1, "there is nothing to see");
        let checkpoint = source.checkpoint.0.clone();
        let held = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let files = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            files.filter(|file| file.starts_with(&checkpoint)).count()
        };
        let mut most = held();
        while source.next_piece().unwrap().is_some() {
            most = most.max(held());
        }
        assert_eq!(most, 1);
    }

    #[test]
    fn a_backup_that_may_not_go_on_leaves_nothing_behind() {
        let above = tempfile::tempdir().unwrap();
        let [node, folder] = ["node", "backups"].map(|name| above.path().join(name));
        std::fs::create_dir(&folder).unwrap();
        let machine = member(&node);
        let path = folder.join("all.mng");
        let names = || {
            let entries = std::fs::read_dir(&folder).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<String>>()
        };
        let write = |asked_max: usize| {
            let mut asked = Vec::new();
            let source = Source::of(&machine, &node).unwrap();
            let written = write_while(source, &path, &mark_of("n1"), &mut |done, all| {
                let half = names();
                assert_eq!(half.len(), usize::from(done > 0), "{half:?}");
                assert!(
                    half.iter().all(|name| name.starts_with("all.mng.n1-")),
                    "{half:?}"
                );
                asked.push((done, all));
                ensure!(asked.len() <= asked_max, "there is no room");
                Ok(())
            });
            (written.is_ok(), asked)
        };
        for asked_max in [0, 1] {
            let (is_written, asked) = write(asked_max);
            assert_eq!((is_written, asked.len()), (false, asked_max + 1));
            assert_eq!(names(), Vec::<String>::new());
        }
        let (is_written, asked) = write(usize::MAX);
        assert!(is_written);
        assert_eq!(names(), ["all.mng"]);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert_eq!(
            asked.first(),
            Some(&(0, bytes)),
            "how many there will be is known before"
        );
        assert_eq!(asked.last(), Some(&(bytes, bytes)));
    }

    #[test]
    fn half_a_backup_is_private_in_nobodys_way_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("pets.mng"), folder.path().join("pets.tmp"));
        std::fs::write(&other, "somebody else's").unwrap();
        let (first, file) = Beside::make(&path, "").unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (second, _file) = Beside::make(&path, "").unwrap();
        assert_ne!(first.0, second.0);
        std::fs::rename(&first.0, &path).unwrap();
        drop((first, second));
        let left = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [path, other.clone()]);
        assert_eq!(std::fs::read(other).unwrap(), b"somebody else's");
    }
}
