//! The data folder as one supervisor holds it: the folder, the lock, the paths of logs and control socket.
//! Invariant: the lock is an advisory lock of the kernel, so it is gone when its holder dies, also by kill -9;
//! what the file says is only for people.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use service::{private, secrets};

/// What the kernel allows for the path of a Unix socket on the strictest of our systems, with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Of folders in which everybody has things, such as `/tmp`: the sticky bit.
const SHARED: u32 = 0o1000;

/// Far longer than a look at the lock takes, unless its process is put aside just then.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// The paths under a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
}

/// Held as long as the supervisor lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Place {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_path_buf(),
        }
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.data.join("control.sock")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    pub(crate) fn log_of(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// What a node of this folder has found damaged, so that it does not start again. That this cannot be read is no
    /// damage.
    pub(crate) fn damage_of(&self, node: &str) -> Option<String> {
        kvstore::damage_in(&self.data.join(node)).ok().flatten()
    }

    fn lock_file(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// Makes the folder for its owner alone, since it holds secrets and the control socket.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        if self.control().as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            bail!(
                "the path {} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes): choose a shorter folder with --data",
                self.control().display()
            );
        }
        if !self.data.exists() {
            private::make_folder(&self.data)
                .with_context(|| format!("make the data folder {}", self.data.display()))?;
        }
        self.make_private()?;
        fs::create_dir_all(self.logs()).with_context(|| format!("make {}", self.logs().display()))
    }

    /// Only what is a data folder, or is empty and so becomes one, is taken away from others: `--data /tmp` would take
    /// from everybody what everybody needs.
    fn make_private(&self) -> anyhow::Result<()> {
        let shown = self.data.display();
        let found = fs::metadata(&self.data).with_context(|| format!("look at {shown}"))?;
        let mode = found.permissions().mode();
        let for_others = mode & 0o077;
        if for_others == 0 {
            return Ok(());
        }
        let is_ours = self.data.join(secrets::FILE_NAME).is_file();
        if mode & SHARED != 0 || !(is_ours || self.is_empty()?) {
            bail!(
                "{shown} is open to others and no data folder of ours: name one that is empty, or not there yet; or, if \
                 nobody else needs this one, run: chmod 700 {shown}"
            );
        }
        fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("make {shown} private"))
    }

    /// But for what every new disk has.
    fn is_empty(&self) -> anyhow::Result<bool> {
        let entries = fs::read_dir(&self.data).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.with_context(|| format!("look into {}", self.data.display()))?;
        Ok(entries.iter().all(|entry| entry.file_name() == "lost+found"))
    }

    /// Takes the lock, or says who has it.
    pub(crate) fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let began = Instant::now();
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Who only looks whether it is taken shares it for an instant; a holder does not.
            let is_held = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
            if is_held || began.elapsed() > LOOK_MAX {
                let mut holder = String::new();
                file.read_to_string(&mut holder)
                    .context("read who holds the lock")?;
                bail!(
                    "{} is in use: process {} runs there (`menagerie status` shows it, `menagerie down` stops it, --data names another folder)",
                    self.data.display(),
                    holder.trim()
                );
            }
            std::thread::yield_now();
        }
        file.set_len(0).context("empty the lock file")?;
        file.rewind().context("rewind the lock file")?;
        writeln!(file, "{}", std::process::id()).context("write the lock file")?;
        Ok(Lock { _file: file })
    }

    /// Whether a supervisor holds the folder at this moment.
    pub(crate) fn is_locked(&self) -> bool {
        File::open(self.lock_file())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// What the supervisor in the background said to people: its log, from where it began to write, without the lines for
    /// machines.
    pub(crate) fn said_by_supervisor(&self, said_before: u64) -> String {
        let text = fs::read(self.log_of("supervisor")).unwrap_or_default();
        let before = usize::try_from(said_before).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(text.get(before..).unwrap_or_default());
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('{')).collect();
        let said = lines.join("\n");
        said.strip_prefix("menagerie: ").unwrap_or(&said).to_owned()
    }

    /// The last lines of a log, for a message that says why something failed.
    pub(crate) fn tail_of(&self, process: &str) -> String {
        const LINES: usize = 5;
        let text = fs::read(self.log_of(process)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // A process that was started again and again says the same each time.
        let mut lines: Vec<&str> = text.lines().collect();
        lines.dedup();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}
