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
}

const ORDERS: u64 = 6;

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

    /// How often this order had an effect so far.
    pub(super) fn effects(&self, order: Order) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.page
            .read_exact_at(&mut bytes, order.effect())
            .context("read the page of a shim")?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
