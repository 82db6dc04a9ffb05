//! What applying a command may ask of the state it meets.
//!
//! Two implementations: the database, and a map in memory that counts for tests what is read of it.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::state::{Head, Kept, KeptId, Lease};
use crate::command::Record;

pub trait Base {
    fn head(&self, key: &[u8]) -> Option<Head>;

    /// The value that `key` got at revision `modified`, which is its present one.
    fn value(&self, key: &[u8], modified: u64) -> Bytes;

    fn record(&self, key: &[u8]) -> Option<Record> {
        let head = self.head(key)?;
        Some(head.with_value(self.value(key, head.modified)))
    }

    /// Live keys from `from` up to but not including `to`, in order, until the visitor breaks. Whoever wants a value
    /// asks for it, so that a walk over many keys reads few.
    fn range(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], Head) -> ControlFlow<()>);

    fn lease(&self, id: u64) -> Option<Lease>;

    fn lease_keys(&self, id: u64) -> Vec<Bytes>;

    fn kept(&self, id: &KeptId) -> Option<Kept>;

    /// Kept answers that ended in `from_ms..to_ms`, at most `limit`: when each did, and what it counted.
    fn kept_between(&self, from_ms: u64, to_ms: u64, limit: usize) -> Vec<((u64, KeptId), u64)>;

    /// The disk that member `id` is bound to.
    fn member_disk(&self, id: u64) -> Option<String>;
}
