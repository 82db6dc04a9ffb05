//! Heads of keys used lately, in memory: what every write asks first, and what would cost a search through
//! all tables of the database.
//!
//! Only applying uses it, so it always says what the database says. It must be emptied with the database.

use std::cell::RefCell;
use std::ops::ControlFlow;

use bytes::Bytes;
use quick_cache::unsync::Cache;

use super::base::Base;
use super::draft::Effects;
use super::state::{Head, Kept, KeptId, Lease};
use crate::storage::machine_db::MachineDb;

/// A head, its place in the cache, and the handle of its key.
const ROW_BYTES: u64 = 160;

#[derive(Clone)]
struct KeyAndHead;

impl quick_cache::Weighter<Bytes, Head> for KeyAndHead {
    fn weight(&self, key: &Bytes, _head: &Head) -> u64 {
        ROW_BYTES + key.len() as u64
    }
}

pub(super) struct RecentHeads {
    heads: RefCell<Cache<Bytes, Head, KeyAndHead>>,
}

impl RecentHeads {
    pub(super) fn new(bytes: u64) -> Self {
        let rows = usize::try_from(bytes / (ROW_BYTES + 32)).unwrap_or(usize::MAX);
        Self {
            heads: RefCell::new(Cache::with_weighter(rows, bytes, KeyAndHead)),
        }
    }

    /// What an apply has just written.
    pub(super) fn learn(&mut self, effects: &Effects) {
        let heads = self.heads.get_mut();
        for (key, head) in &effects.heads {
            match head {
                // No copy: each key of a command has memory of its own since it was decoded, so nothing larger stays
                // with it.
                Some(head) => heads.insert(key.clone(), *head),
                None => {
                    heads.remove(key.as_ref());
                }
            }
        }
    }

    pub(super) fn over<'a>(&'a self, db: &'a MachineDb) -> WithRecent<'a> {
        WithRecent { db, recent: self }
    }
}

/// The database, asked only for heads that are not at hand.
pub(super) struct WithRecent<'a> {
    db: &'a MachineDb,
    recent: &'a RecentHeads,
}

impl Base for WithRecent<'_> {
    fn head(&self, key: &[u8]) -> Option<Head> {
        if let Some(head) = self.recent.heads.borrow().get(key) {
            return Some(*head);
        }
        let head = self.db.head(key)?;
        let mut heads = self.recent.heads.borrow_mut();
        heads.insert(Bytes::copy_from_slice(key), head);
        Some(head)
    }

    fn value(&self, key: &[u8], modified: u64) -> Bytes {
        self.db.value(key, modified)
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], Head) -> ControlFlow<()>) {
        self.db.range(from, to, visit);
    }

    fn lease(&self, id: u64) -> Option<Lease> {
        self.db.lease(id)
    }

    fn lease_keys(&self, id: u64) -> Vec<Bytes> {
        self.db.lease_keys(id)
    }

    fn kept(&self, id: &KeptId) -> Option<Kept> {
        self.db.kept(id)
    }

    fn kept_between(&self, from_ms: u64, to_ms: u64, limit: usize) -> Vec<((u64, KeptId), u64)> {
        self.db.kept_between(from_ms, to_ms, limit)
    }

    fn member_disk(&self, id: u64) -> Option<String> {
        self.db.member_disk(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_written_is_not_copied() {
        let head = Head {
            created: 1,
            modified: 1,
            version: 1,
            lease: 0,
            hash: 0,
        };
        let key = Bytes::from(b"key".to_vec());
        let written = Effects {
            heads: [(key.clone(), Some(head))].into(),
            ..Effects::default()
        };
        let mut recent = RecentHeads::new(1 << 20);
        recent.learn(&written);
        let at_hand = recent.heads.get_mut().remove(key.as_ref());
        let (at_hand, _head) = at_hand.expect("it is at hand");
        assert_eq!(at_hand.as_ptr(), key.as_ptr());
    }
}
