//! Documents of the JSON copy on the disk.
//! Invariant: what has the name of a document is whole: it is written beside, synced, and renamed by who calls.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::private_file;

/// Writes a document, whole and on the disk, under the name that is answered.
pub(super) fn write_beside(path: &Path, document: &impl Serialize) -> anyhow::Result<PathBuf> {
    let beside = path.with_extension("tmp");
    let write = || -> anyhow::Result<()> {
        let file = private_file()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&beside)?;
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, document)?;
        out.write_all(b"\n")?;
        Ok(out.into_inner().context("write what is left")?.sync_all()?)
    };
    let written = write();
    if written.is_err() {
        // On a full disk it would take the room of what must be written.
        fs::remove_file(&beside).ok();
    }
    written.with_context(|| format!("write {}", path.display()))?;
    Ok(beside)
}
