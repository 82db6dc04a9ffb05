//! The journal of the JSON copy: one record for each group of revisions, with its length and checksum.
//! Invariant: a record that was synced is read back; one that a crash cut short is the last, and counts as never
//! written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Context as _;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use serde::{Deserialize, Serialize};

use super::private_file;
use crate::row::{Change, Row};

/// Length and checksum before each record.
const HEADER: usize = 8;

/// All changes up to a revision, since the record before.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) revision: u64,
    pub(super) changes: Vec<Stored>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) answers: Vec<KeptAnswer>,
}

/// A row as it is written down.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredRow {
    #[serde(flatten)]
    kv: KeyValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    granted: Option<Granted>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stored {
    Put(StoredRow),
    Delete(String),
}

impl From<&Change> for Stored {
    fn from(change: &Change) -> Self {
        match change {
            Change::Put(row) => Self::Put(row.into()),
            Change::Delete(key) => Self::Delete(key.clone()),
        }
    }
}

impl From<Stored> for Change {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Put(row) => Self::Put(row.into()),
            Stored::Delete(key) => Self::Delete(key),
        }
    }
}

impl From<&Row> for StoredRow {
    fn from(row: &Row) -> Self {
        let kv = KeyValue {
            key: row.key.clone(),
            value: Some(row.value.clone()),
            create_revision: row.created,
            mod_revision: row.modified,
            version: row.version,
            lease: row.lease,
        };
        Self {
            kv,
            granted: row.granted.clone(),
        }
    }
}

impl From<StoredRow> for Row {
    fn from(stored: StoredRow) -> Self {
        Self {
            granted: stored.granted,
            ..Self::from(stored.kv)
        }
    }
}

pub(super) struct Journal {
    file: File,
    pub(super) bytes: u64,
    synced: bool,
}

impl Journal {
    /// Opens it behind its last whole record, each of which is handed on.
    pub(super) fn open(path: &Path, synced: bool, each: &mut dyn FnMut(Entry)) -> anyhow::Result<Self> {
        let mut options = private_file();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).context("read the journal")?;
        let bytes = read(&text, each)?;
        if bytes < text.len() as u64 {
            tracing::info!("the last record of the journal was cut short; it was never acknowledged");
            file.set_len(bytes).context("cut the journal")?;
        }
        // Also what another mode wrote without: it is told to the store now.
        file.sync_all().context("sync the journal")?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Self { file, bytes, synced })
    }

    pub(super) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let body = serde_json::to_vec(entry)?;
        let length = u32::try_from(body.len()).context("a record of the journal is larger than 4 GiB")?;
        let mut record = Vec::with_capacity(HEADER + body.len());
        record.extend(length.to_le_bytes());
        record.extend(crc32c::crc32c(&body).to_le_bytes());
        record.extend(&body);
        let written = self.file.write_all(&record).and_then(|()| {
            if self.synced {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            // What stands there now is no record, and the next one must not come behind it.
            self.file.set_len(self.bytes).ok();
            self.file.seek(SeekFrom::Start(self.bytes)).ok();
            return Err(error).context("write the journal");
        }
        self.bytes += record.len() as u64;
        Ok(())
    }
}

/// Answers where the last whole record ends.
pub(super) fn read(text: &[u8], each: &mut dyn FnMut(Entry)) -> anyhow::Result<u64> {
    let mut rest = text;
    let mut end = 0;
    while let Some((header, body)) = rest.split_at_checked(HEADER) {
        let (length, crc) = header.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("split at four")) as usize;
        let crc = u32::from_le_bytes(crc.try_into().expect("eight less four"));
        let Some((body, behind)) = body.split_at_checked(length) else {
            break;
        };
        if crc32c::crc32c(body) != crc {
            // Damage in the middle is something else than an end that was never reached.
            anyhow::ensure!(behind.is_empty(), "the journal is damaged at byte {end}");
            break;
        }
        each(serde_json::from_slice(body).context("read a record of the journal")?);
        end += (HEADER + length) as u64;
        rest = behind;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: u64) -> Entry {
        Entry {
            revision,
            changes: vec![Stored::Delete(format!("key-{revision}"))],
            answers: Vec::new(),
        }
    }

    #[test]
    fn a_record_that_was_cut_short_is_as_if_it_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, true, &mut |_| panic!("it is new")).unwrap();
        for revision in 1..=3 {
            journal.append(&entry(revision)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let mut seen = Vec::new();
            read(&whole[..cut], &mut |entry| seen.push(entry.revision)).unwrap();
            let records = 3 * cut / whole.len();
            assert_eq!(seen, (1..=records as u64).collect::<Vec<_>>(), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[HEADER + 2] ^= 1;
        assert!(
            read(&damaged, &mut |_| ()).is_err(),
            "damage before the end is told"
        );
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut seen = Vec::new();
        let mut journal = Journal::open(&path, true, &mut |entry| seen.push(entry.revision)).unwrap();
        journal.append(&entry(4)).unwrap();
        drop(journal);
        Journal::open(&path, true, &mut |entry| seen.push(entry.revision)).unwrap();
        assert_eq!(seen, [1, 2, 1, 2, 4]);
    }
}
