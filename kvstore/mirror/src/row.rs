//! What the copy is made of: keys with their values, and the changes of one revision.
//! Invariant: a row says everything that a cluster needs to have this key again: value, revisions, version, lease.

use bytes::Bytes;
use kvstore_client::wire::kv::KeyValue;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use kvstore_client::{EventKind, WatchBatch, WatchEvent};
use service::time::now_ms;
use tokio::time::Instant;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) version: u64,
    /// 0: none.
    pub(crate) lease: u64,
    /// The lease itself, unless it had ended before the store could tell of it.
    pub(crate) granted: Option<Granted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Row),
    Delete(String),
}

/// All changes of one revision.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    /// The answer that was kept for it, if it was asked for under an idempotency key.
    pub(crate) kept: Option<KeptAnswer>,
    /// When it came here.
    pub(crate) arrived: Instant,
}

impl Row {
    /// Roughly what it takes up.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + 40
    }
}

impl Change {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put(row) => row.bytes(),
            Self::Delete(key) => key.len() + 16,
        }
    }
}

impl Batch {
    pub(crate) fn bytes(&self) -> usize {
        self.changes.iter().map(Change::bytes).sum()
    }
}

impl From<KeyValue> for Row {
    fn from(kv: KeyValue) -> Self {
        Self {
            value: kv.bytes(),
            key: kv.key,
            created: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
            granted: None,
        }
    }
}

impl From<WatchEvent> for Change {
    fn from(event: WatchEvent) -> Self {
        let change = event.change;
        match event.kind {
            EventKind::Delete => Self::Delete(change.key),
            EventKind::Put => Self::Put(Row {
                key: change.key,
                value: change.value.unwrap_or_default(),
                created: change.create_revision,
                modified: change.mod_revision,
                version: change.version,
                lease: change.lease,
                granted: change.granted,
            }),
        }
    }
}

impl From<WatchBatch> for Batch {
    fn from(mut batch: WatchBatch) -> Self {
        Self {
            revision: batch.revision,
            kept: batch
                .events
                .last_mut()
                .and_then(|event| event.change.kept.take())
                .map(|kept| kept.by_clock(now_ms())),
            changes: batch.events.into_iter().map(Change::from).collect(),
            arrived: Instant::now(),
        }
    }
}
