//! A disk under one node that can lose its power or fill up: a file with an ext4 in it, on a loop device.
//! Invariant: it is unmounted when it is dropped; the node on it must be dead by then. What takes its time is done on
//! another thread, since the clients run on this one.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::power::pull_the_plug;
use crate::arena::{elsewhere, wait_for, within_time};

const BYTES: u64 = 640 << 20;
/// What the names of a disk's file, and of the folder where it is mounted, end with.
pub(super) const IMAGE: &str = "image";
pub(super) const MOUNTED: &str = "mounted";
const BALLAST: &str = "ballast";
const LET_GO: Duration = Duration::from_secs(20);

pub(super) struct Disk {
    device: Device,
    /// Held by whoever does something to it, so that it is not dropped meanwhile and then mounted again.
    is_gone: Arc<Mutex<bool>>,
}

impl Disk {
    pub(super) fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let device = Device {
            image: folder.join(format!("{name}.{IMAGE}")),
            mounted: folder.join(format!("{name}.{MOUNTED}")),
        };
        let disk = Self {
            device,
            is_gone: Arc::default(),
        };
        disk.device.make()?;
        Ok(disk)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.device.data()
    }

    /// By which the kernel knows it.
    pub(super) fn number(&self) -> anyhow::Result<u64> {
        let folder = std::fs::metadata(&self.device.mounted).context("look at a disk")?;
        Ok(folder.dev())
    }

    /// Takes up all room but so much, and when it is called again, what was given up meanwhile.
    pub(super) async fn fill_up_to(&self, left_bytes: u64) -> anyhow::Result<()> {
        self.elsewhere(move |device| device.fill_up_to(left_bytes)).await
    }

    pub(super) async fn free(&self) -> anyhow::Result<()> {
        self.elsewhere(Device::free).await
    }

    pub(super) async fn cut_power(&self) -> anyhow::Result<()> {
        self.elsewhere(Device::cut_power).await
    }

    /// The power is back; no process of before may live.
    pub(super) async fn boot(&self) -> anyhow::Result<()> {
        wait_for("a dead disk to be let go", LET_GO, async || {
            self.elsewhere(Device::unmount).await.ok()
        })
        .await?;
        self.elsewhere(Device::mount).await
    }

    async fn elsewhere(
        &self,
        work: impl FnOnce(&Device) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (device, is_gone) = (self.device.clone(), Arc::clone(&self.is_gone));
        elsewhere(move || {
            let is_gone = lock(&is_gone);
            ensure!(!*is_gone, "the disk is gone");
            work(&device)
        })
        .await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut is_gone = lock(&self.is_gone);
        *is_gone = true;
        // Where it was never mounted there is nothing to do.
        let _ = run("umount", &[Path::new("--lazy"), &self.device.mounted]);
    }
}

fn lock(is_gone: &Mutex<bool>) -> MutexGuard<'_, bool> {
    is_gone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is done to it, by whoever may wait.
#[derive(Clone)]
struct Device {
    image: PathBuf,
    mounted: PathBuf,
}

impl Device {
    fn make(&self) -> anyhow::Result<()> {
        let image = File::create(&self.image).context("make the image of a disk")?;
        image.set_len(BYTES).context("make the image of a disk")?;
        std::fs::create_dir(&self.mounted).context("make a folder to mount a disk on")?;
        // No room is kept back for root, who may be us.
        run(
            "mkfs.ext4",
            &[Path::new("-q"), Path::new("-m"), Path::new("0"), &self.image],
        )?;
        self.mount()?;
        std::fs::create_dir(self.data()).context("make the folder on a disk")?;
        run("sync", &[Path::new("--file-system"), &self.mounted])
    }

    fn data(&self) -> PathBuf {
        self.mounted.join("data")
    }

    fn mount(&self) -> anyhow::Result<()> {
        run(
            "mount",
            &[Path::new("-o"), Path::new("loop"), &self.image, &self.mounted],
        )
    }

    fn unmount(&self) -> anyhow::Result<()> {
        run("umount", &[&self.mounted])
    }

    fn fill_up_to(&self, left_bytes: u64) -> anyhow::Result<()> {
        let path = self.mounted.join(BALLAST);
        let ballast = File::options().create(true).append(true).open(path);
        let ballast = ballast.context("fill a disk")?;
        let length = ballast.metadata().context("look at a disk")?.len();
        let stat = rustix::fs::statvfs(&self.mounted).context("look at a disk")?;
        let room = (stat.f_bavail * stat.f_frsize).saturating_sub(left_bytes);
        if room == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), length, room) {
            // The node has taken it first.
            Err(Errno::NOSPC) => Ok(()),
            filled => filled.context("fill a disk"),
        }
    }

    fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.mounted.join(BALLAST)).context("make room on a disk")
    }

    fn cut_power(&self) -> anyhow::Result<()> {
        pull_the_plug(&self.mounted).context("take the power from a disk")?;
        if File::create(self.mounted.join("probe")).is_ok() {
            bail!(
                "the power of {} was taken, and it still takes files",
                self.mounted.display()
            );
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::tests::beside_others;

    /// Only who is root can have a disk, and not everywhere.
    #[tokio::test]
    async fn others_go_on_while_a_disk_is_full_and_while_it_boots() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(disk) = Disk::new(folder.path(), "disk") else {
            return;
        };
        let fault = async {
            disk.fill_up_to(BYTES / 4).await?;
            disk.free().await?;
            disk.cut_power().await?;
            disk.boot().await
        };
        let (booted, turns) = beside_others(fault).await;
        booted.unwrap();
        assert!(turns > 1, "others got {turns} turns");
        assert!(disk.data().is_dir(), "what was synced is gone");
    }

    #[tokio::test]
    async fn a_disk_that_is_filled_to_the_last_byte_takes_nothing_until_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(disk) = Disk::new(folder.path(), "disk") else {
            return;
        };
        let write = |name: &str| std::fs::write(disk.data().join(name), vec![1; 1 << 16]);
        write("given-up").unwrap();
        disk.fill_up_to(0).await.unwrap();
        let full = std::io::ErrorKind::StorageFull;
        assert_eq!(write("a").unwrap_err().kind(), full);
        std::fs::remove_file(disk.data().join("given-up")).unwrap();
        disk.fill_up_to(0).await.unwrap();
        assert_eq!(write("b").unwrap_err().kind(), full);
        disk.free().await.unwrap();
        write("b").unwrap();
    }
}
