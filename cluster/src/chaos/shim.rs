//! What lies between a node and its clock and disk: a library that makes them wrong, slow or failing when told so.
//! Invariant: without orders it changes nothing; that an order had an effect is counted by the library itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::arena::within_time;

const SOURCE: &str = include_str!("shim.c");
const PAGE_BYTES: u64 = 4096;

/// The fields of the shared page, by their place.
#[derive(Clone, Copy)]
pub(super) enum Order {
    ClockOffsetS = 0,
    SyncDelayUs = 1,
    SyncFails = 2,
    /// Of writes to the files of the log.
    WriteFails = 3,
    /// How much faster than the others it goes, from `ClockDriftFromS` on.
    ClockDriftPermille = 4,
    ClockDriftFromS = 5,
    /// The process ends at this step towards the disk, counted from now on; 0 is never.
    EndAtStep = 6,
    /// Behind the step instead of before it.
    EndBehind = 7,
    /// And the disk with this number loses its power; steps on others do not count then. 0 is none.
    EndPowerOf = 8,
}

const ORDERS: u64 = 9;
/// Texts stand behind the effects: which steps count, and at which it ended.
const ONLY: u64 = 2 * 8 * ORDERS;
const ONLY_BYTES: usize = 128;
const ENDED_AT: u64 = ONLY + ONLY_BYTES as u64;
const ENDED_AT_BYTES: usize = 256;

/// Before or behind which step towards the disk a node ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'w> {
    /// Steps whose path does not have this in it do not count.
    pub(super) only: &'w str,
    pub(super) step: i64,
    pub(super) behind: bool,
    /// The number of the disk that loses its power with it.
    pub(super) power_of: Option<u64>,
}

impl Order {
    /// How often it had an effect stands behind all orders.
    fn effect(self) -> u64 {
        8 * (self as u64 + ORDERS)
    }
}

/// The library, built with the compiler that builds the store too.
pub(super) fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SOURCE).context("write the library")?;
    let built = within_time("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .output();
    let built = built.context("run the C compiler")?;
    if !built.status.success() {
        bail!(
            "the C compiler failed: {}",
            String::from_utf8_lossy(&built.stderr)
        );
    }
    Ok(library)
}

/// The shim of one node.
pub(super) struct Shim {
    page: File,
    pub(super) path: PathBuf,
}

impl Shim {
    pub(super) fn new(path: PathBuf) -> anyhow::Result<Self> {
        let page = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path);
        let page = page.context("make the page of a shim")?;
        page.set_len(PAGE_BYTES).context("make the page of a shim")?;
        Ok(Self { page, path })
    }

    pub(super) fn set(&self, order: Order, value: i64) -> anyhow::Result<()> {
        let place = 8 * order as u64;
        self.page
            .write_all_at(&value.to_ne_bytes(), place)
            .context("write to the page of a shim")
    }

    pub(super) fn end_at(&self, end: End<'_>) -> anyhow::Result<()> {
        self.spare()?;
        let mut only = [0; ONLY_BYTES];
        let word = end.only.as_bytes();
        only[..word.len()].copy_from_slice(word);
        self.page
            .write_all_at(&only, ONLY)
            .context("write to the page of a shim")?;
        self.set(Order::EndBehind, end.behind.into())?;
        let disk = end.power_of.unwrap_or(0);
        self.set(
            Order::EndPowerOf,
            i64::try_from(disk).context("the number of a disk")?,
        )?;
        self.set(Order::EndAtStep, end.step)
    }

    /// Whatever step comes, it is not the end.
    pub(super) fn spare(&self) -> anyhow::Result<()> {
        self.set(Order::EndAtStep, 0)
    }

    /// The step at which it ended last, and its path.
    pub(super) fn ended_at(&self) -> anyhow::Result<String> {
        let mut text = [0; ENDED_AT_BYTES];
        self.page
            .read_exact_at(&mut text, ENDED_AT)
            .context("read the page of a shim")?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// How often this order had an effect so far.
    pub(super) fn effects(&self, order: Order) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.page
            .read_exact_at(&mut bytes, order.effect())
            .context("read the page of a shim")?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
