//! The state machine's database: one RocksDB without WAL, flushed atomically over its tables.
//!
//! Invariant: one batch holds the effects of an apply and the log id it reached, so that whatever
//! prefix survives a crash knows how far it goes. It must not know openraft: log ids are bytes here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Env, FlushOptions, Options, ReadOptions, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};
use serde::{Serialize, de::DeserializeOwned};
use service::planted::{Bug, is_planted};

use super::closing::Closing;
use super::damage::{Damage, is_corruption};
use super::events;
use super::keys;
use super::records::Records;
use super::scratch::Scratch;
use super::tables::table_options;
use crate::command::Record;
use crate::machine::draft::Effects;
use crate::machine::gaps::{Gap, Gaps};
use crate::machine::state::{Event, MinuteMark, Mirror, Mirrors, State, Token, Tokens};

pub(crate) const HEADS: &str = "kv";
pub(crate) const VERSIONS: &str = "versions";
pub(crate) const EVENTS: &str = "events";
pub(crate) const LEASES: &str = "leases";
pub(crate) const ANSWERS: &str = "answers";
pub(crate) const META: &str = "meta";
const TABLES: [&str; 6] = [HEADS, VERSIONS, EVENTS, LEASES, ANSWERS, META];

pub(crate) const TABLES_OF_STATE: &str = "the tables of this node's state";
pub(super) const STATE: &[u8] = b"state";
pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const MEMBERSHIP: &[u8] = b"membership";
/// How far the physical removal of compacted history has come.
pub(super) const COLLECTED: &[u8] = b"collected";

/// Memory the database may use; set in `cluster.toml`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineMemory {
    pub(crate) memtable_bytes: usize,
    pub(crate) cache_bytes: usize,
    /// Bytes for records of keys used lately; 0 keeps none.
    pub(crate) records: u64,
}

pub(crate) struct MachineDb {
    pub(crate) db: DB,
    pub(super) damage: Arc<Damage>,
    /// Of all reads of single keys: made anew, they are an object of the other language each time.
    pub(super) read_options: ReadOptions,
    pub(crate) records: Records,
    pub(crate) closing: Closing,
}

impl MachineDb {
    pub(crate) fn open(
        path: &Path,
        memory: MachineMemory,
        damage: Arc<Damage>,
    ) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // The tables are flushed together, or a crash could keep a key without its version.
        options.set_atomic_flush(true);
        // All databases of a process share its threads. With one for flushes, the log's stalled applies for 160 ms.
        let mut env = Env::new()?;
        env.set_background_threads(2);
        env.set_high_priority_background_threads(2);
        options.set_env(&env);
        options.set_max_background_jobs(3);
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(3);
        options.set_paranoid_checks(true);
        // One thread writes, so inserts need no atomics and may begin where the last one ended.
        options.set_allow_concurrent_memtable_write(false);
        let cache = Cache::new_lru_cache(memory.cache_bytes);
        let tables =
            TABLES.map(|name| ColumnFamilyDescriptor::new(name, table_options(name, memory, &cache)));
        let opened = DB::open_cf_descriptors(&options, path, tables);
        let db = opened.inspect_err(|error| damage.report(TABLES_OF_STATE, error))?;
        Ok(Self {
            db,
            damage,
            read_options: ReadOptions::default(),
            records: Records::new(memory.records),
            closing: Closing::new(),
        })
    }

    /// Opens a checkpoint without changing a byte of it, nor opening all of its tables at once, however many there are.
    pub(crate) fn open_read_only(
        path: &Path,
        memory: MachineMemory,
        damage: Arc<Damage>,
    ) -> Result<Self, rocksdb::Error> {
        let cache = Cache::new_lru_cache(memory.cache_bytes);
        let mut options = Options::default();
        options.set_keep_log_file_num(1);
        options.set_max_open_files(64);
        let tables =
            TABLES.map(|name| ColumnFamilyDescriptor::new(name, table_options(name, memory, &cache)));
        let db = DB::open_cf_descriptors_read_only(&options, path, tables, false)?;
        Ok(Self {
            db,
            damage,
            read_options: ReadOptions::default(),
            records: Records::new(0),
            closing: Closing::new(),
        })
    }

    /// The result of a read. One that failed ends the node, and whoever asked gets nothing to go on with.
    pub(crate) fn intact<T>(&self, read: Result<T, rocksdb::Error>) -> T {
        read.unwrap_or_else(|error| {
            self.damage.report(TABLES_OF_STATE, &error);
            panic!("a read of the state's tables failed: {error}")
        })
    }

    /// The result of a write, which fails when something was found damaged in the background.
    pub(super) fn noted<T>(&self, written: Result<T, rocksdb::Error>) -> Result<T, rocksdb::Error> {
        written.inspect_err(|error| {
            if is_corruption(error) {
                self.damage.report(TABLES_OF_STATE, error);
            }
        })
    }

    pub(crate) fn table(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("all tables are opened with the database")
    }

    /// Writes an apply: its effects, the counters after it, and the log id it reached.
    pub(crate) fn write(
        &self,
        effects: &Effects,
        state: &State,
        applied: &[u8],
        membership: Option<&[u8]>,
    ) -> Result<(), rocksdb::Error> {
        let (mut batch, mut scratch) = (WriteBatch::default(), Scratch::default());
        self.put_records(&mut batch, &mut scratch, effects);
        self.put_leases(&mut batch, &mut scratch, effects);
        self.put_meta(&mut batch, &mut scratch, effects);
        let meta = self.table(META);
        batch.put_cf(meta, STATE, scratch.encode(state));
        if !is_planted(Bug::AppliedIdLate) || state.revision.is_multiple_of(4) {
            batch.put_cf(meta, APPLIED, applied);
        }
        if let Some(membership) = membership {
            batch.put_cf(meta, MEMBERSHIP, membership);
        }
        self.records.forget(effects);
        self.noted(self.db.write_opt(batch, &without_wal()))?;
        self.records.learn(effects);
        Ok(())
    }

    /// Values are written once, under their version; `kv` has the heads. The events of a batch are one
    /// row, since single rows would cost as much as the values.
    fn put_records(&self, batch: &mut WriteBatch, scratch: &mut Scratch, effects: &Effects) {
        let (heads, versions) = (self.table(HEADS), self.table(VERSIONS));
        for (key, head) in &effects.heads {
            match head {
                Some(head) => batch.put_cf(heads, key, scratch.encode(head)),
                None => batch.delete_cf(heads, key),
            }
        }
        for Event { key, record } in &effects.events {
            batch.put_cf(
                versions,
                keys::version(key, record.modified),
                scratch.encode(record),
            );
        }
        if let Some(first) = effects.events.first() {
            let row = events::encode_row(scratch, &effects.events, &effects.superseded);
            batch.put_cf(self.table(EVENTS), keys::events(first.record.modified), row);
        }
    }

    fn put_leases(&self, batch: &mut WriteBatch, scratch: &mut Scratch, effects: &Effects) {
        let leases = self.table(LEASES);
        for (id, lease) in &effects.leases {
            match lease {
                Some(lease) => batch.put_cf(leases, keys::lease(*id), scratch.encode(lease)),
                None => batch.delete_cf(leases, keys::lease(*id)),
            }
        }
        for ((id, key), attached) in &effects.lease_keys {
            if *attached {
                batch.put_cf(leases, keys::lease_key(*id, key), []);
            } else {
                batch.delete_cf(leases, keys::lease_key(*id, key));
            }
        }
    }

    fn put_meta(&self, batch: &mut WriteBatch, scratch: &mut Scratch, effects: &Effects) {
        let (answers, meta) = (self.table(ANSWERS), self.table(META));
        for (id, kept) in &effects.kept {
            match kept {
                Some(kept) => batch.put_cf(answers, keys::kept(&id.owner, &id.key), scratch.encode(kept)),
                None => batch.delete_cf(answers, keys::kept(&id.owner, &id.key)),
            }
        }
        for ((expires_ms, id), counted) in &effects.kept_expiry {
            let key = keys::kept_expiry(*expires_ms, &id.owner, &id.key);
            match counted {
                Some(bytes) => batch.put_cf(answers, key, scratch.encode(bytes)),
                None => batch.delete_cf(answers, key),
            }
        }
        for (revision, id) in &effects.kept_of {
            let value = keys::kept_of_value(&id.owner, &id.key);
            batch.put_cf(answers, keys::kept_of(*revision), value);
        }
        for (name, token) in &effects.tokens {
            match token {
                Some(token) => batch.put_cf(meta, keys::token(name), scratch.encode(token.as_ref())),
                None => batch.delete_cf(meta, keys::token(name)),
            }
        }
        for (name, mirror) in &effects.mirrors {
            match mirror {
                Some(mirror) => batch.put_cf(meta, keys::mirror(name), scratch.encode(mirror.as_ref())),
                None => batch.delete_cf(meta, keys::mirror(name)),
            }
        }
        for (number, mark) in &effects.minutes {
            batch.put_cf(meta, keys::minute(*number), scratch.encode(mark));
        }
        for (id, disk) in &effects.member_disks {
            batch.put_cf(meta, keys::member(*id), disk.as_bytes());
        }
    }

    /// The counters; those of an empty store when nothing was applied yet.
    pub(crate) fn state(&self) -> State {
        self.meta(STATE).map(|bytes| decode(&bytes)).unwrap_or_default()
    }

    pub(crate) fn applied(&self) -> Option<Vec<u8>> {
        self.meta(APPLIED)
    }

    pub(crate) fn membership(&self) -> Option<Vec<u8>> {
        self.meta(MEMBERSHIP)
    }

    pub(crate) fn collected(&self) -> u64 {
        self.meta(COLLECTED).map_or(0, |bytes| decode(&bytes))
    }

    pub(crate) fn put_collected(&self, batch: &mut WriteBatch, revision: u64) {
        batch.put_cf(self.table(META), COLLECTED, encode(&revision));
    }

    pub(crate) fn tokens(&self) -> Tokens {
        let by_name: BTreeMap<String, Arc<Token>> = self
            .meta_under(b"token/")
            .into_iter()
            .map(|(_, bytes)| decode::<Token>(&bytes))
            .map(|token| (token.name.clone(), Arc::new(token)))
            .collect();
        Tokens { by_name }
    }

    pub(crate) fn mirrors(&self) -> Mirrors {
        let rows = self.meta_under(b"mirror/").into_iter();
        let mirrors = rows.map(|(_, bytes)| decode::<Mirror>(&bytes));
        let by_name = mirrors.map(|mirror| (mirror.name.clone(), Arc::new(mirror)));
        Mirrors {
            by_name: by_name.collect(),
        }
    }

    pub(crate) fn gaps(&self) -> Gaps {
        let rows = self.meta_under(b"gap/").into_iter();
        Gaps(rows.map(|(_, bytes)| decode(&bytes)).collect())
    }

    /// The marks of past minutes, oldest first.
    pub(crate) fn minutes(&self) -> Vec<(u64, MinuteMark)> {
        let number =
            |key: &[u8]| u64::from_be_bytes(key[7..].try_into().expect("a minute's key ends in eight bytes"));
        self.meta_under(b"minute/")
            .into_iter()
            .map(|(key, bytes)| (number(&key), decode(&bytes)))
            .collect()
    }

    pub(crate) fn remove_minutes(&self, numbers: &[u64]) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        for number in numbers {
            batch.delete_cf(self.table(META), keys::minute(*number));
        }
        self.noted(self.db.write_opt(batch, &without_wal()))
    }

    fn meta(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.intact(self.db.get_cf(self.table(META), key))
    }

    fn meta_under(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut cursor = self.db.raw_iterator_cf(self.table(META));
        cursor.seek(prefix);
        while let Some((key, value)) = cursor.item().filter(|(key, _)| key.starts_with(prefix)) {
            rows.push((key.to_vec(), value.to_vec()));
            cursor.next();
        }
        self.intact(cursor.status());
        rows
    }

    /// Makes this the state of a cluster that begins with it: its id, tokens and disks are given by its first leader,
    /// and its revisions are its own.
    pub(crate) fn begin_anew(&self, membership: &[u8], first: u64) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        let meta = self.table(META);
        // Mirrors of the old cluster announce themselves to the new one when they have it. Tokens begin with those that
        // the secrets of the new one name: whoever holds another of the old is a stranger here.
        let of_the_old = [b"member/".as_slice(), b"mirror/", b"token/"];
        for (key, _) in of_the_old.iter().flat_map(|prefix| self.meta_under(prefix)) {
            batch.delete_cf(meta, key);
        }
        let before = self.state();
        let gap = Gap {
            last: before.revision,
            first,
        };
        batch.put_cf(meta, keys::gap(gap.last), encode(&gap));
        let state = State {
            cluster_id: String::new(),
            revision: gap.first,
            ..before
        };
        batch.put_cf(meta, STATE, encode(&state));
        batch.put_cf(meta, MEMBERSHIP, membership);
        self.db.write_opt(batch, &without_wal())?;
        self.flush()
    }

    /// Only for a bug that is planted.
    pub(crate) fn forget_answers(&self) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.table(ANSWERS), [0].as_slice(), [0xff; 8].as_slice());
        self.db.write_opt(batch, &without_wal())
    }

    /// Brings what was applied to disk, so that a restart replays little.
    pub(crate) fn flush(&self) -> Result<(), rocksdb::Error> {
        let tables: Vec<&ColumnFamily> = TABLES.iter().map(|name| self.table(name)).collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.noted(self.db.flush_cfs_opt(&tables, &options))
    }

    /// Hard links of a consistent state in a new folder; flushes first, since there is no WAL.
    pub(crate) fn checkpoint(&self, folder: &Path) -> Result<(), rocksdb::Error> {
        self.flush()?;
        Checkpoint::new(&self.db)?.create_checkpoint_with_log_size(folder, 0)
    }
}

pub(crate) fn without_wal() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("stored values hold no map of unknown length, so they always encode")
}

/// What does not decode is damage: going on would spread it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> T {
    postcard::from_bytes(bytes).expect("a stored value decodes, or the database is damaged")
}

pub(crate) fn decode_record(bytes: &[u8]) -> Record {
    decode(bytes)
}

pub(crate) fn to_bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
