//! The state of a node that has stopped, to be held beside those of the other members: all that later entries are decided
//! by must be the same wherever the same entries were applied, not only the keys whose hash is carried along.
//! Invariant: each row belongs to a part that is compared, or is a node's own for a reason that stands here; one of a kind
//! that is not known here is an error. Rows are hashed as they pass, so that one is in memory at a time, and no value is
//! ever told.

mod account;
mod part;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rocksdb::{ColumnFamily, DB, DBRawIterator, Options};
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use super::keys;
use super::machine_db::{APPLIED, EVENTS, META, STATE, VERSIONS};
use crate::command::Record;
use crate::machine::state::{Head, MinuteMark, State, record_hash};
use account::Account;
pub use part::Part;
use part::part_of;

/// Tables in which no two nodes need have the same rows. History is removed by each node when it comes to it, and the
/// versions of living keys are read with their heads. Events are one row for each batch, and where one ends is up to the
/// node.
const A_NODES_OWN: [&str; 2] = [VERSIONS, EVENTS];
/// Open at once, however many tables there are.
const FILES_MAX: i32 = 64;

pub struct StoppedState {
    db: DB,
    tables: Vec<String>,
    state: State,
    applied: String,
}

/// What a state comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// For each part that has rows the sum of their hashes, as the state's own is one of keys.
    pub parts: BTreeMap<Part, u128>,
    /// Where the state does not agree with itself, in words.
    pub contradictions: Vec<String>,
}

impl StoppedState {
    /// Opens the database of a state (`databases_in`) that nobody has open, without changing it.
    pub fn open(database: &Path) -> io::Result<Self> {
        let mut options = Options::default();
        options.set_max_open_files(FILES_MAX);
        let tables = DB::list_cf(&options, database).map_err(io::Error::other)?;
        let db = DB::open_cf_for_read_only(&options, database, &tables, false).map_err(io::Error::other)?;
        let meta = |key: &[u8]| db.get_cf(table_of(&db, META)?, key).map_err(io::Error::other);
        let state = meta(STATE)?.map(|state| decoded(&state)).transpose()?;
        let applied = meta(APPLIED)?.unwrap_or_default();
        Ok(Self {
            tables,
            state: state.unwrap_or_default(),
            applied: String::from_utf8_lossy(&applied).into_owned(),
            db,
        })
    }

    /// The id of the last entry that was applied: states are compared where it is the same.
    pub fn applied(&self) -> &str {
        &self.applied
    }

    /// Hashes of the rows themselves, whatever the state says of them.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut parts: BTreeMap<Part, u128> = BTreeMap::new();
        let mut account = Account::default();
        for table in &self.tables {
            if A_NODES_OWN.contains(&table.as_str()) {
                continue;
            }
            let mut cursor = self.cursor(table)?;
            cursor.seek_to_first();
            while let Some((key, value)) = cursor.item() {
                if let Some(part) = part_of(table, key)? {
                    let hash = if part == Part::Keys {
                        let (head, record) = self.living(key, value)?;
                        Some(account.note_key(key, head, &record))
                    } else {
                        account.note(part, key, value)?;
                        self.hash_of(part, key, value)?
                    };
                    // A part has no hash by rows that another node may have removed already.
                    if let Some(hash) = hash {
                        let sum = parts.entry(part).or_default();
                        *sum = sum.wrapping_add(hash);
                    }
                }
                cursor.next();
            }
            cursor.status().map_err(io::Error::other)?;
        }
        let keys_hash = parts.get(&Part::Keys).copied().unwrap_or_default();
        Ok(Digest {
            parts,
            contradictions: account.contradictions(&self.state, keys_hash),
        })
    }

    /// The first key of this part, in their order, that two states do not have alike; of the counters the name of one.
    pub fn first_difference(&self, other: &Self, part: Part) -> io::Result<Option<String>> {
        if part == Part::Counters {
            return Ok(differing_counter(&self.state, &other.state).map(str::to_owned));
        }
        let (mut ours, mut theirs) = (self.rows(part)?, other.rows(part)?);
        loop {
            let key = match (ours.next_row()?, theirs.next_row()?) {
                (None, None) => return Ok(None),
                (Some(one), Some(other)) if one == other => continue,
                (Some((one, _)), Some((other, _))) => one.min(other),
                (Some((key, _)), None) | (None, Some((key, _))) => key,
            };
            return Ok(Some(shown(&key)));
        }
    }

    fn rows(&self, part: Part) -> io::Result<Rows<'_>> {
        let (table, first) = part.place();
        let mut cursor = self.cursor(table)?;
        cursor.seek(first);
        Ok(Rows {
            state: self,
            part,
            cursor,
        })
    }

    fn cursor(&self, table: &str) -> io::Result<DBRawIterator<'_>> {
        Ok(self.db.raw_iterator_cf(table_of(&self.db, table)?))
    }

    /// A living key as its head says that it is, and as its version does.
    fn living(&self, key: &[u8], head: &[u8]) -> io::Result<(Head, Record)> {
        let head: Head = decoded(head)?;
        let at = keys::version(key, head.modified);
        let version = self.db.get_pinned_cf(table_of(&self.db, VERSIONS)?, at);
        let version = version.map_err(io::Error::other)?;
        let version =
            version.ok_or_else(|| io::Error::other(format!("the key {} has no value", shown(key))))?;
        Ok((head, decoded(&version)?))
    }

    /// What a row adds to the hash of its part; nothing if each node removes such rows when its collector comes to them.
    fn hash_of(&self, part: Part, key: &[u8], value: &[u8]) -> io::Result<Option<u128>> {
        let compacted = self.state.compacted;
        let is_shared = match part {
            Part::Keys => {
                let (_head, record) = self.living(key, value)?;
                return Ok(Some(record_hash(key, &record)));
            }
            // Those up to the floor, or to a pin before it.
            Part::AnswersByRevision => {
                keys::parse_kept_of(key, value).is_none_or(|(revision, _)| revision > compacted)
            }
            // Those before the floor; and what a minute ends with is never removed before the next one begins.
            Part::Minutes => decoded::<MinuteMark>(value)?.revision >= compacted,
            _ => true,
        };
        Ok(is_shared.then(|| row_hash(key, value)))
    }
}

/// The rows of one part that members must have alike, as their keys and hashes.
struct Rows<'s> {
    state: &'s StoppedState,
    part: Part,
    cursor: DBRawIterator<'s>,
}

impl Rows<'_> {
    fn next_row(&mut self) -> io::Result<Option<(Vec<u8>, u128)>> {
        let (table, _first) = self.part.place();
        while let Some((key, value)) = self.cursor.item() {
            if part_of(table, key)? != Some(self.part) {
                return Ok(None);
            }
            let hash = self.state.hash_of(self.part, key, value)?;
            let row = hash.map(|hash| (key.to_vec(), hash));
            self.cursor.next();
            if row.is_some() {
                return Ok(row);
            }
        }
        self.cursor.status().map_err(io::Error::other)?;
        Ok(None)
    }
}

fn table_of<'d>(db: &'d DB, name: &str) -> io::Result<&'d ColumnFamily> {
    let table = db.cf_handle(name);
    table.ok_or_else(|| io::Error::other(format!("the state has no table {name}")))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

fn row_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    hash.digest128()
}

fn shown(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn differing_counter(one: &State, other: &State) -> Option<&'static str> {
    let State {
        cluster_id,
        revision,
        compacted,
        now_ms,
        hash,
        keys,
        answers_bytes,
        answers_swept_ms,
        history_bytes,
        tokens_made,
    } = one;
    let counters = [
        ("cluster_id", *cluster_id == other.cluster_id),
        ("revision", *revision == other.revision),
        ("compacted", *compacted == other.compacted),
        ("now_ms", *now_ms == other.now_ms),
        ("hash", *hash == other.hash),
        ("keys", *keys == other.keys),
        ("answers_bytes", *answers_bytes == other.answers_bytes),
        ("answers_swept_ms", *answers_swept_ms == other.answers_swept_ms),
        ("history_bytes", *history_bytes == other.history_bytes),
        ("tokens_made", *tokens_made == other.tokens_made),
    ];
    let mut differing = counters.into_iter().filter(|(_, is_same)| !is_same);
    differing.next().map(|(name, _)| name)
}

#[cfg(test)]
mod tests;
