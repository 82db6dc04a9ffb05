//! A disk under one node that can lose its power or fill up: a file with an ext4 in it, on a loop device.
//! Invariant: it is unmounted when it is dropped; the node on it must be dead by then.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::FallocateFlags;

use super::power::pull_the_plug;
use crate::arena::{wait_for, within_time};

const BYTES: u64 = 640 << 20;
/// What the names of a disk's file, and of the folder where it is mounted, end with.
pub(super) const IMAGE: &str = "image";
pub(super) const MOUNTED: &str = "mounted";
const BALLAST: &str = "ballast";
const LET_GO: Duration = Duration::from_secs(20);

pub(super) struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    pub(super) fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let disk = Self {
            image: folder.join(format!("{name}.{IMAGE}")),
            mounted: folder.join(format!("{name}.{MOUNTED}")),
        };
        let image = File::create(&disk.image).context("make the image of a disk")?;
        image.set_len(BYTES).context("make the image of a disk")?;
        std::fs::create_dir(&disk.mounted).context("make a folder to mount a disk on")?;
        // No room is kept back for root, who may be us.
        run(
            "mkfs.ext4",
            &[Path::new("-q"), Path::new("-m"), Path::new("0"), &disk.image],
        )?;
        disk.mount()?;
        std::fs::create_dir(disk.data()).context("make the folder on a disk")?;
        disk.sync()?;
        Ok(disk)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.mounted.join("data")
    }

    fn mount(&self) -> anyhow::Result<()> {
        run(
            "mount",
            &[Path::new("-o"), Path::new("loop"), &self.image, &self.mounted],
        )
    }

    fn sync(&self) -> anyhow::Result<()> {
        run("sync", &[Path::new("--file-system"), &self.mounted])
    }

    /// By which the kernel knows it.
    pub(super) fn number(&self) -> anyhow::Result<u64> {
        let folder = std::fs::metadata(&self.mounted).context("look at a disk")?;
        Ok(folder.dev())
    }

    pub(super) fn free_bytes(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(&self.mounted).context("look at a disk")?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Takes up all room but so much.
    pub(super) fn fill_up_to(&self, left_bytes: u64) -> anyhow::Result<()> {
        let ballast = File::create(self.mounted.join(BALLAST)).context("fill a disk")?;
        let room = self.free_bytes()?.saturating_sub(left_bytes);
        rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, room).context("fill a disk")
    }

    pub(super) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.mounted.join(BALLAST)).context("make room on a disk")
    }

    pub(super) fn cut_power(&self) -> anyhow::Result<()> {
        pull_the_plug(&self.mounted).context("take the power from a disk")?;
        if File::create(self.mounted.join("probe")).is_ok() {
            bail!(
                "the power of {} was taken, and it still takes files",
                self.mounted.display()
            );
        }
        Ok(())
    }

    /// The power is back; no process of before may live.
    pub(super) async fn boot(&self) -> anyhow::Result<()> {
        wait_for("a dead disk to be let go", LET_GO, async || {
            run("umount", &[&self.mounted]).ok()
        })
        .await?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where it was never mounted there is nothing to do.
        let _ = run("umount", &[Path::new("--lazy"), &self.mounted]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> anyhow::Result<()> {
    let output = within_time(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program}: {}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
