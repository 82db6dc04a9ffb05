//! What to do when a disk gives back something else than was written to it.
//!
//! Invariant: whoever meets damage gets no value to go on with; the node ends, says what to do, and does not
//! start again on this folder. A checksum that does not match leaves a mark; an error that may pass does not.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::files;

const MARK: &str = "DAMAGED";
const ADVICE: &str = "The other members have everything that was acknowledged: put a new one in its place, under a new \
    number and with an empty folder (`menagerie kv member replace OLD NEW`).";
/// How the advice begins, whatever program wrote the mark.
const ADVICE_BEGINS: &str = "The other members have";

#[derive(Debug)]
pub(crate) struct Damage {
    mark: PathBuf,
    found: watch::Sender<Option<String>>,
}

/// Whether this says that bytes are wrong, not only that they could not be read or written this time.
pub(crate) fn is_corruption(error: &rocksdb::Error) -> bool {
    error.kind() == rocksdb::ErrorKind::Corruption
}

/// What a person has to know about damage: what was found, and what to do.
pub(crate) fn advise(what: &str, error: &dyn std::fmt::Display) -> String {
    format!("{what} are damaged ({error}). {ADVICE}")
}

/// What was found damaged in this folder of a node before, if anything was: no node starts on it again.
pub fn damage_in(folder: &Path) -> io::Result<Option<String>> {
    let said = files::read_if_present(&folder.join(MARK))?;
    Ok(said.map(|said| String::from_utf8_lossy(&said).into_owned()))
}

/// Takes the mark away from a folder that no node lives in. Answers what it says was found, without the advice, which
/// is for the member of a cluster that lives.
pub(crate) fn take_mark(folder: &Path) -> io::Result<Option<String>> {
    let said = damage_in(folder)?;
    files::remove_file(&folder.join(MARK))?;
    Ok(said.map(|said| {
        let found = said
            .split_once(ADVICE_BEGINS)
            .map_or(said.as_str(), |(found, _)| found);
        found.trim().to_owned()
    }))
}

impl Damage {
    /// Of the node whose folder this is. Refuses a folder on which damage was found before.
    pub(crate) fn watch_over(folder: &Path) -> io::Result<Arc<Self>> {
        if let Some(said) = damage_in(folder)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        Ok(Arc::new(Self {
            mark: folder.join(MARK),
            found: watch::Sender::new(None),
        }))
    }

    /// Ends the node; at once, unless it is under way already.
    pub(crate) fn report(&self, what: &str, error: &rocksdb::Error) {
        if is_corruption(error) {
            self.report_corruption(what, error);
        } else {
            self.end(format!("{what} cannot be read: {error}"));
        }
    }

    /// The same for bytes whose checksum was compared here.
    pub(crate) fn report_corruption(&self, what: &str, error: &dyn std::fmt::Display) {
        let said = advise(what, error);
        if let Err(error) = files::write_atomically(&self.mark, said.as_bytes()) {
            tracing::warn!(%error, "the mark of damage could not be written; the next start will not know of it");
        }
        self.end(said);
    }

    fn end(&self, said: String) {
        tracing::error!("{said}");
        self.found.send_if_modified(|found| {
            let first = found.is_none();
            found.get_or_insert(said);
            first
        });
    }

    /// Waits until damage is found; answers what to tell. Cancel-safe.
    pub(crate) async fn found(&self) -> String {
        let mut found = self.found.subscribe();
        let said = found
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|said| said.clone());
        said.expect("the sender lives in self, and what was waited for is there")
    }
}
