//! Kept answers as mirrors need them: which of them tells of a revision, and all of them; and what they take.
//! Invariant: what is found for a revision was kept by the very command that made it.

use rocksdb::WriteBatch;

use super::keys;
use super::machine_db::{ANSWERS, MachineDb, decode, without_wal};
use crate::machine::base::Base as _;
use crate::machine::shares::Shares;
use crate::machine::state::{Kept, KeptId};

impl MachineDb {
    /// The answers that were kept for these revisions and have not ended, until so many bytes are gathered.
    pub(crate) fn kept_of(&self, from: u64, upto: u64, bytes_max: usize) -> Vec<(u64, KeptId, Kept)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut cursor = self.db.raw_iterator_cf(self.table(ANSWERS));
        cursor.seek(keys::kept_of(from));
        while let Some((row, value)) = cursor.item().filter(|_| bytes < bytes_max) {
            let Some((revision, id)) = keys::parse_kept_of(row, value).filter(|(at, _)| *at <= upto) else {
                break;
            };
            if let Some(kept) = self.kept(&id) {
                bytes += kept.reply.len();
                found.push((revision, id, kept));
            }
            cursor.next();
        }
        self.intact(cursor.status());
        found
    }

    /// Kept answers in the order of their owners and keys, after this one, until so many bytes are gathered.
    pub(crate) fn kept_after(&self, after: Option<&KeptId>, bytes_max: u64) -> Vec<(KeptId, Kept)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let first = after.map_or_else(|| b"a".to_vec(), |id| keys::kept(&id.owner, &id.key));
        let mut cursor = self.db.raw_iterator_cf(self.table(ANSWERS));
        cursor.seek(&first);
        while let Some((row, value)) = cursor.item() {
            let Some(id) = keys::parse_kept(row) else { break };
            if bytes >= bytes_max {
                break;
            }
            if Some(&id) != after {
                let kept: Kept = decode(value);
                bytes += kept.bytes(&id);
                found.push((id, kept));
            }
            cursor.next();
        }
        self.intact(cursor.status());
        found
    }

    /// What all kept answers take, by their owners; without a look at the answers, which may be large.
    pub(crate) fn shares(&self) -> Shares {
        let mut shares = Shares::default();
        let mut cursor = self.db.raw_iterator_cf(self.table(ANSWERS));
        cursor.seek(keys::kept_expiry(0, "", ""));
        while let Some((row, counted)) = cursor.item() {
            let Some((_expires_ms, id)) = keys::parse_kept_expiry(row) else {
                break;
            };
            shares.grow(&id.owner, self.counted(&id, counted));
            cursor.next();
        }
        self.intact(cursor.status());
        shares
    }

    /// What an answer takes, as the row says that tells when it ends. A node of before did not say, and the answer
    /// itself has to be looked at.
    pub(super) fn counted(&self, id: &KeptId, said: &[u8]) -> u64 {
        match said {
            [] => self.kept(id).map_or(0, |kept| kept.bytes(id)),
            said => decode(said),
        }
    }

    /// Which answer told of a revision is asked by watches only, and none reaches behind the floor.
    pub(crate) fn forget_kept_of(&self, floor: u64) -> Result<(), rocksdb::Error> {
        let table = self.table(ANSWERS);
        let (first, end) = (keys::kept_of(0), keys::kept_of(floor.saturating_add(1)));
        let mut cursor = self.db.raw_iterator_cf(table);
        cursor.seek(&first);
        let there_are_none = cursor.key().is_none_or(|row| row >= end.as_slice());
        self.intact(cursor.status());
        if there_are_none {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(table, &first, &end);
        self.noted(self.db.write_opt(batch, &without_wal()))
    }
}
