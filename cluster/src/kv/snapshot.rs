//! `kv snapshot`: saves a consistent backup of the whole store to a file.
//! Invariant: the file appears under its name only when it is whole and on disk.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::StreamExt;
use serde_json::json;

use super::{Session, show};

#[derive(Args)]
pub(super) struct Snapshot {
    /// Where to save it
    file: PathBuf,
}

impl Snapshot {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if self.file.exists() {
            bail!("{} exists already: name another file", self.file.display());
        }
        let mut name = self.file.clone().into_os_string();
        name.push(".tmp");
        let part = PathBuf::from(name);
        let saved = save(session, &part).await;
        if saved.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        let bytes = saved?;
        std::fs::rename(&part, &self.file).with_context(|| format!("name it {}", self.file.display()))?;
        sync_folder_of(&self.file)?;
        if session.output.json {
            let file = self.file.display().to_string();
            return Ok(session
                .output
                .document(&json!({ "file": file, "bytes": bytes }))?);
        }
        Ok(session
            .output
            .line(format_args!("{}: {}", self.file.display(), show::bytes(bytes)))?)
    }
}

async fn save(session: &Session, part: &PathBuf) -> anyhow::Result<u64> {
    let mut pieces = pin!(session.client.snapshot().await?);
    let mut file = File::create(part).with_context(|| format!("make {}", part.display()))?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        file.write_all(&piece)
            .with_context(|| format!("write {}", part.display()))?;
    }
    // Before the rename: a name that points to a file whose bytes a power cut took would be no backup.
    file.sync_all()
        .with_context(|| format!("sync {}", part.display()))?;
    Ok(bytes)
}

/// The rename itself is on disk only when the folder is.
fn sync_folder_of(file: &std::path::Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| std::path::Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context("sync the folder")
}
