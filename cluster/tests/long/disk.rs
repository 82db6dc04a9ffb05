//! A disk that can lose its power: a file with an ext4 in it, mounted through a loop device.
//! Invariant: it is unmounted when it is dropped; drop the cluster on it first.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Cluster, wait_until};
use crate::power::pull_the_plug;

/// Far more than a test writes.
const AMPLE_BYTES: u64 = 1 << 30;
const BALLAST: &str = "ballast";

pub(crate) struct Disk {
    folder: TempDir,
}

/// Runs a tool of the system; without it, or without the right to use it, there is no power loss.
fn tool(name: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(name).args(arguments).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

fn demand(result: Result<(), String>) {
    if let Err(error) = result {
        panic!("power loss cannot be caused here; it needs root, mkfs.ext4 and loop devices: {error}");
    }
}

impl Disk {
    pub(crate) fn of(bytes: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("mng-disk").tempdir().unwrap();
        let disk = Self { folder };
        File::create(disk.image()).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(disk.mounted()).unwrap();
        // No room is kept back for root, who may be us.
        let options = ["-q", "-m", "0"].map(Path::new);
        demand(tool(
            "mkfs.ext4",
            &[options.as_slice(), &[&disk.image()]].concat(),
        ));
        disk.mount();
        std::fs::create_dir(disk.data()).unwrap();
        disk.sync();
        disk
    }

    /// Three disks, one under each node of a cluster that does not run yet.
    pub(crate) fn under(cluster: &Cluster) -> Vec<Self> {
        Self::of_size_under(cluster, AMPLE_BYTES)
    }

    pub(crate) fn of_size_under(cluster: &Cluster, bytes: u64) -> Vec<Self> {
        DirBuilder::new().mode(0o700).create(cluster.data()).unwrap();
        let disks = cluster.config.nodes.iter().map(|node| {
            let disk = Self::of(bytes);
            symlink(disk.data(), cluster.data().join(node.name())).unwrap();
            disk
        });
        disks.collect()
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn data(&self) -> PathBuf {
        self.mounted().join("data")
    }

    fn mount(&self) {
        let [option, kind] = ["-o", "loop"].map(Path::new);
        demand(tool("mount", &[option, kind, &self.image(), &self.mounted()]));
    }

    /// Everything written so far survives a power loss.
    pub(crate) fn sync(&self) {
        rustix::fs::syncfs(File::open(self.mounted()).unwrap()).unwrap();
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.mounted()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Takes up all room but so much.
    pub(crate) fn fill_up_to(&self, left_bytes: u64) {
        let mut ballast = File::create(self.mounted().join(BALLAST)).unwrap();
        let piece = vec![1; 1 << 20];
        while self.free_bytes() > left_bytes {
            let room = usize::try_from(self.free_bytes() - left_bytes).unwrap();
            if ballast.write_all(&piece[..room.min(piece.len())]).is_err() {
                return;
            }
        }
        ballast.sync_all().unwrap();
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.mounted().join(BALLAST)).unwrap();
    }

    pub(crate) fn cut(&self) {
        demand(pull_the_plug(&self.mounted()).map_err(|error| format!("EXT4_IOC_SHUTDOWN: {error}")));
    }

    /// Whether the power is really gone.
    pub(crate) fn is_dead(&self) -> bool {
        File::create(self.mounted().join("probe")).is_err()
    }

    /// The power is back; no process of before may live.
    pub(crate) async fn boot(&self) {
        let mounted = self.mounted();
        wait_until("the dead disk is let go", Duration::from_secs(20), async || {
            tool("umount", &[&mounted])
        })
        .await;
        self.mount();
        assert!(!self.is_dead());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool("umount", &[Path::new("--lazy"), &self.mounted()]);
    }
}
