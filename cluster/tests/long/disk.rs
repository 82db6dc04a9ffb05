//! A disk that can lose its power: a file with an ext4 in it, mounted through a loop device.
//! Invariant: it is unmounted when it is dropped; drop the cluster on it first.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Cluster, wait_until};
use crate::power::pull_the_plug;

const BYTES: u64 = 1 << 30;

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
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mng-disk").tempdir().unwrap();
        let disk = Self { folder };
        File::create(disk.image()).unwrap().set_len(BYTES).unwrap();
        std::fs::create_dir(disk.mounted()).unwrap();
        demand(tool("mkfs.ext4", &[Path::new("-q"), &disk.image()]));
        disk.mount();
        std::fs::create_dir(disk.data()).unwrap();
        disk.sync();
        disk
    }

    /// Three disks, one under each node of a cluster that does not run yet.
    pub(crate) fn under(cluster: &Cluster) -> Vec<Self> {
        DirBuilder::new().mode(0o700).create(cluster.data()).unwrap();
        let disks = cluster.config.nodes.iter().map(|node| {
            let disk = Self::new();
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
