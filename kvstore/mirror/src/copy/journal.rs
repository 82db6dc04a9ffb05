//! The journal of the JSON copy: one record for each group of revisions, with its length and checksum.
//! Invariant: a record that was synced is read back; one that a crash cut short is the last, and counts as never
//! written. Of records that were not synced a crash may leave any: what comes before the first that is gone counts.

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

/// Whether each record was on the disk before the next one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Synced,
    Unsynced,
}

impl Written {
    pub(super) fn of(unsynced: bool) -> Self {
        if unsynced { Self::Unsynced } else { Self::Synced }
    }
}

pub(super) struct Journal {
    file: File,
    pub(super) bytes: u64,
    written: Written,
}

impl Journal {
    /// Opens it behind its last whole record, each of which is handed on.
    pub(super) fn open(path: &Path, written: Written, each: &mut dyn FnMut(Entry)) -> anyhow::Result<Self> {
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
        let bytes = read(&text, written, each)?;
        if bytes < text.len() as u64 {
            tracing::info!("the end of the journal was cut short; what stood there was never waited for");
            file.set_len(bytes).context("cut the journal")?;
        }
        // Also what another mode wrote without: it is told to the store now.
        file.sync_all().context("sync the journal")?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Self { file, bytes, written })
    }

    pub(super) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let body = serde_json::to_vec(entry)?;
        let length = u32::try_from(body.len()).context("a record of the journal is larger than 4 GiB")?;
        let mut record = Vec::with_capacity(HEADER + body.len());
        record.extend(length.to_le_bytes());
        record.extend(crc32c::crc32c(&body).to_le_bytes());
        record.extend(&body);
        let written = self.file.write_all(&record).and_then(|()| {
            if self.written == Written::Synced {
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
pub(super) fn read(text: &[u8], written: Written, each: &mut dyn FnMut(Entry)) -> anyhow::Result<u64> {
    let mut rest = text;
    while let Some((body, behind)) = record(rest) {
        each(serde_json::from_slice(body).context("read a record of the journal")?);
        rest = behind;
    }
    let end = text.len() - rest.len();
    // Damage in the middle is something else than an end that was never reached, also where it is the length that was
    // damaged and seems to reach beyond the end.
    let damaged = written == Written::Synced && (1..rest.len()).any(|at| record(&rest[at..]).is_some());
    anyhow::ensure!(!damaged, "the journal is damaged at byte {end}");
    Ok(end as u64)
}

/// The record that begins here, if it is whole, and what comes behind it. None is empty: zeros are what a file system
/// leaves where it had no time to write more.
fn record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = text.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (body, behind) = rest.split_at_checked(length)?;
    (length > 0 && crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some((body, behind))
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
        let mut journal = Journal::open(&path, Written::Synced, &mut |_| panic!("it is new")).unwrap();
        for revision in 1..=3 {
            journal.append(&entry(revision)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let mut seen = Vec::new();
            read(&whole[..cut], Written::Synced, &mut |entry| {
                seen.push(entry.revision);
            })
            .unwrap();
            let records = 3 * cut / whole.len();
            assert_eq!(seen, (1..=records as u64).collect::<Vec<_>>(), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[HEADER + 2] ^= 1;
        assert!(
            read(&damaged, Written::Synced, &mut |_| ()).is_err(),
            "damage before the end is told"
        );
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut seen = Vec::new();
        let mut journal =
            Journal::open(&path, Written::Synced, &mut |entry| seen.push(entry.revision)).unwrap();
        journal.append(&entry(4)).unwrap();
        drop(journal);
        Journal::open(&path, Written::Synced, &mut |entry| seen.push(entry.revision)).unwrap();
        assert_eq!(seen, [1, 2, 1, 2, 4]);
    }

    /// What is read of three records after this was done to them.
    fn left(written: Written, harm: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<Vec<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, written, &mut |_| panic!("it is new")).unwrap();
        for revision in 1..=3 {
            journal.append(&entry(revision)).unwrap();
        }
        let mut text = std::fs::read(&path).unwrap();
        harm(&mut text);
        let mut seen = Vec::new();
        read(&text, written, &mut |entry| seen.push(entry.revision))?;
        Ok(seen)
    }

    #[test]
    fn zeros_are_an_end() {
        for zeros in [1, 8, 9, 4096] {
            let seen = left(Written::Synced, |text| text.extend(vec![0; zeros]));
            assert_eq!(seen.unwrap(), [1, 2, 3], "{zeros}");
        }
    }

    #[test]
    fn a_length_that_was_damaged_cuts_off_no_synced_record() {
        // The highest byte of the first length: the record seems to reach beyond the end.
        let damaged = |text: &mut Vec<u8>| text[3] ^= 0x80;
        let error = left(Written::Synced, damaged).unwrap_err();
        assert!(error.to_string().contains("damaged at byte 0"), "{error}");
        let zeroed = |text: &mut Vec<u8>| text[..HEADER + 3].fill(0);
        left(Written::Synced, zeroed).unwrap_err();
    }

    #[test]
    fn of_what_was_not_synced_the_part_before_the_gap_counts() {
        let second = |text: &[u8]| text.len() / 3 + HEADER + 2;
        let seen = left(Written::Unsynced, |text| {
            let at = second(text);
            text[at] ^= 1;
        });
        assert_eq!(seen.unwrap(), [1]);
    }
}
