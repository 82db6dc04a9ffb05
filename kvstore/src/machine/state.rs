//! The replicated state beside the keys: counters, leases, kept answers, tokens.
//!
//! Everything here is a function of the log alone. Nothing here knows where it is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::command::{MirrorMode, MirrorState, OnLoss, Record, Rule};

/// The counters, one row, rewritten with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub cluster_id: String,
    pub revision: u64,
    /// Reads at this revision still work, earlier ones do not.
    pub compacted: u64,
    /// The replicated clock: the leader's, never running backwards.
    pub now_ms: u64,
    /// Sum over all live keys of [`record_hash`], modulo 2^128: order does not matter, so it is kept
    /// up with one subtraction and one addition a write.
    pub hash: u128,
    pub keys: u64,
    pub answers_bytes: u64,
    /// Kept answers that end before this have been swept.
    pub answers_swept_ms: u64,
    /// Bytes of history ever written; the difference between two marks is what lies between them.
    pub history_bytes: u64,
    pub tokens_made: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub ttl_ms: u64,
    /// Name of the token that made it; empty for the node's own.
    pub owner: String,
    pub renewals: u64,
    /// A revision that compaction must leave readable while the lease lives.
    pub pin: Option<u64>,
}

/// The first answer given under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub fingerprint: [u8; 16],
    pub expires_ms: u64,
    /// The encoded [`crate::command::Reply`].
    pub reply: Bytes,
}

impl Kept {
    /// What it counts towards the bound of all kept answers.
    pub fn bytes(&self, id: &KeptId) -> u64 {
        (2 * (id.owner.len() + id.key.len()) + self.reply.len() + 48) as u64
    }
}

/// Where a kept answer is found: whose key, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptId {
    pub owner: String,
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub number: u64,
    pub name: String,
    pub hash: [u8; 32],
    pub rules: Vec<Rule>,
}

/// All tokens by name; small, so each change makes a new map that readers swap in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub by_name: BTreeMap<String, Arc<Token>>,
}

impl Tokens {
    pub fn by_number(&self, number: u64) -> Option<&Arc<Token>> {
        self.by_name.values().find(|token| token.number == number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub name: String,
    pub mode: MirrorMode,
    pub on_loss: OnLoss,
    pub incarnation: String,
    pub state: MirrorState,
    /// The store's revision when it came into this state.
    pub since: u64,
}

impl Mirror {
    /// Whether no write is acknowledged without it.
    pub fn is_required(&self) -> bool {
        self.mode == MirrorMode::Sync && self.state == MirrorState::Ok
    }
}

/// All mirrors by name; few, so each change makes a new map that readers swap in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    pub by_name: BTreeMap<String, Arc<Mirror>>,
}

impl Mirrors {
    /// Those that a write waits for.
    pub fn required(&self) -> impl Iterator<Item = &Arc<Mirror>> {
        self.by_name.values().filter(|mirror| mirror.is_required())
    }

    pub fn synchronous(&self) -> impl Iterator<Item = &Arc<Mirror>> {
        self.by_name
            .values()
            .filter(|mirror| mirror.mode == MirrorMode::Sync)
    }
}

/// Where the store stood at the end of a minute, for compaction by age and by bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteMark {
    pub revision: u64,
    pub history_bytes: u64,
}

/// A live key without its value: what most commands need to know, small enough to stay in memory.
/// The value is found under the key's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    pub lease: u64,
    /// What the key adds to the state hash, kept so that a change need not read the old value.
    pub hash: u128,
}

impl Head {
    pub fn of(key: &[u8], record: &Record) -> Self {
        let Record {
            created,
            modified,
            version,
            lease,
            ..
        } = *record;
        Self {
            created,
            modified,
            version,
            lease,
            hash: record_hash(key, record),
        }
    }

    pub fn with_value(self, value: Bytes) -> Record {
        Record {
            created: self.created,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
            value,
        }
    }
}

/// One change of one key, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Bytes,
    /// A tombstone when the key was deleted.
    pub record: Record,
}

/// What a change leaves behind that nobody needs who reads after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// Revision of the key's version before; 0 when the key was not there.
    pub before: u64,
    /// Whether the change itself only says that the key is gone.
    pub deleted: bool,
}

/// What one live key adds to the state hash.
pub fn record_hash(key: &[u8], record: &Record) -> u128 {
    let mut bytes = Vec::with_capacity(40 + key.len() + record.value.len());
    bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
    bytes.extend_from_slice(key);
    for number in [record.created, record.modified, record.version, record.lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&record.value);
    xxh3_128(&bytes)
}

/// The first key after all that begin with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
