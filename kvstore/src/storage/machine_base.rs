//! The database as the state that applying a command meets.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys;
use super::machine_db::{
    ANSWERS, HEADS, LEASES, META, MachineDb, TABLES_OF_STATE, VERSIONS, decode, decode_record, encode,
    to_bytes, without_wal,
};
use super::records::Row;
use crate::command::Record;
use crate::machine::base::Base;
use crate::machine::state::{Head, Kept, KeptId, Lease};

impl MachineDb {
    fn get(&self, table: &str, key: &[u8]) -> Option<rocksdb::DBPinnableSlice<'_>> {
        let table = self.table(table);
        self.intact(self.db.get_pinned_cf_opt(table, key, &self.read_options))
    }

    /// A key as it is now, for readers beside the apply thread: between head and value the key may be
    /// overwritten and its old version collected; then there is a newer head.
    pub(crate) fn record_now(&self, key: &[u8]) -> Option<Record> {
        let row = self.records.get(key, || self.row_now(key))?;
        Some(row.head.with_value(row.value))
    }

    fn row_now(&self, key: &[u8]) -> Option<Row> {
        let mut missed = None;
        loop {
            let head = self.stored_head(key)?;
            if let Some(version) = self.get(VERSIONS, &keys::version(key, head.modified)) {
                let value = decode_record(&version).value;
                return Some(Row { head, value });
            }
            if missed.replace(head.modified) == Some(head.modified) {
                self.lacks_a_value();
            }
        }
    }

    /// Compaction keeps the newest version of a living key.
    fn lacks_a_value(&self) -> ! {
        let said = "a key has no value";
        self.damage.report_corruption(TABLES_OF_STATE, &said);
        panic!("{TABLES_OF_STATE} are damaged: {said}")
    }

    fn stored_head(&self, key: &[u8]) -> Option<Head> {
        self.get(HEADS, key).map(|bytes| decode(&bytes))
    }

    /// Puts keys as they were somewhere else, without a history.
    pub(crate) fn load(&self, rows: &[(Bytes, Record)]) -> Result<(), rocksdb::Error> {
        let mut batch = rocksdb::WriteBatch::default();
        for (key, record) in rows {
            batch.put_cf(self.table(HEADS), key, encode(&Head::of(key, record)));
            batch.put_cf(
                self.table(VERSIONS),
                keys::version(key, record.modified),
                encode(record),
            );
            if record.lease != 0 {
                batch.put_cf(self.table(LEASES), keys::lease_key(record.lease, key), []);
            }
        }
        self.db.write_opt(batch, &without_wal())
    }

    /// All leases; the leader's clock starts from them.
    pub(crate) fn leases(&self) -> Vec<(u64, Lease)> {
        let mut rows = Vec::new();
        self.leases_after(0, &mut |id, lease| {
            rows.push((id, lease));
            ControlFlow::Continue(())
        });
        rows
    }

    /// Leases with ids above this one, in their order. None has the id 0.
    pub(crate) fn leases_after(&self, after: u64, visit: &mut dyn FnMut(u64, Lease) -> ControlFlow<()>) {
        let mut cursor = self.db.raw_iterator_cf(self.table(LEASES));
        cursor.seek(keys::lease(after));
        while let Some((key, value)) = cursor.item().filter(|(key, _)| key.first() == Some(&b'l')) {
            let id = u64::from_be_bytes(key[1..].try_into().expect("a lease's key ends in eight bytes"));
            if id > after && visit(id, decode(value)).is_break() {
                break;
            }
            cursor.next();
        }
        self.intact(cursor.status());
    }

    /// The keys of a lease, which may be very many, for as long as somebody waits for them.
    pub(crate) fn lease_keys_while(&self, id: u64, is_awaited: &dyn Fn() -> bool) -> Vec<Bytes> {
        let prefix = keys::lease_key(id, &[]);
        let mut found = Vec::new();
        let mut cursor = self.db.raw_iterator_cf(self.table(LEASES));
        cursor.seek(&prefix);
        while let Some(key) = cursor.key().and_then(|key| key.strip_prefix(prefix.as_slice()))
            && is_awaited()
        {
            found.push(to_bytes(key));
            cursor.next();
        }
        self.intact(cursor.status());
        found
    }
}

impl Base for MachineDb {
    fn head(&self, key: &[u8]) -> Option<Head> {
        let at_hand = self.records.peek(key).map(|row| row.head);
        at_hand.or_else(|| self.stored_head(key))
    }

    fn value(&self, key: &[u8], modified: u64) -> Bytes {
        let at_hand = self.records.peek(key);
        if let Some(row) = at_hand.filter(|row| row.head.modified == modified) {
            return row.value;
        }
        match self.get(VERSIONS, &keys::version(key, modified)) {
            Some(version) => decode_record(&version).value,
            None => self.lacks_a_value(),
        }
    }

    fn range(&self, from: &[u8], to: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], Head) -> ControlFlow<()>) {
        let mut cursor = self.db.raw_iterator_cf(self.table(HEADS));
        cursor.seek(from);
        while let Some((key, value)) = cursor.item() {
            if to.is_some_and(|to| key >= to) {
                break;
            }
            if visit(key, decode(value)).is_break() {
                break;
            }
            cursor.next();
        }
        self.intact(cursor.status());
    }

    fn lease(&self, id: u64) -> Option<Lease> {
        self.get(LEASES, &keys::lease(id)).map(|bytes| decode(&bytes))
    }

    fn lease_keys(&self, id: u64) -> Vec<Bytes> {
        self.lease_keys_while(id, &|| true)
    }

    fn kept(&self, id: &KeptId) -> Option<Kept> {
        self.get(ANSWERS, &keys::kept(&id.owner, &id.key))
            .map(|bytes| decode(&bytes))
    }

    fn kept_between(&self, from_ms: u64, to_ms: u64, limit: usize) -> Vec<((u64, KeptId), u64)> {
        let mut found = Vec::new();
        let mut cursor = self.db.raw_iterator_cf(self.table(ANSWERS));
        cursor.seek(keys::kept_expiry(from_ms, "", ""));
        while let Some((row, counted)) = cursor.item() {
            let Some((expires_ms, id)) = keys::parse_kept_expiry(row).filter(|(at, _)| *at < to_ms) else {
                break;
            };
            if found.len() == limit {
                break;
            }
            let bytes = self.counted(&id, counted);
            found.push(((expires_ms, id), bytes));
            cursor.next();
        }
        self.intact(cursor.status());
        found
    }

    fn member_disk(&self, id: u64) -> Option<String> {
        let bytes = self.get(META, &keys::member(id))?;
        Some(String::from_utf8(bytes.to_vec()).expect("a disk's name was written as text"))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::command::{Action, Expect};
    use crate::machine::small::{entry, opened};
    use crate::storage::damage::damage_in;

    #[test]
    fn a_living_key_without_a_value_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        {
            let machine = opened(folder.path());
            let put = Action::Put {
                key: Bytes::from_static(b"key"),
                value: Bytes::from_static(b"value"),
                lease: 0,
                expect: Expect::Any,
            };
            machine.apply(vec![entry(1, 1, [put])]).unwrap();
            let generation = machine.generation();
            let db = generation.db();
            let version = keys::version(b"key", 1);
            db.db
                .delete_cf_opt(db.table(VERSIONS), version, &without_wal())
                .unwrap();
            db.flush().unwrap();
        }
        // One that does not have it in memory.
        let machine = opened(folder.path());
        let generation = machine.generation();
        let read = catch_unwind(AssertUnwindSafe(|| generation.db().record_now(b"key")));
        assert!(read.is_err());
        let said = damage_in(folder.path()).unwrap();
        assert!(
            said.as_ref()
                .is_some_and(|said| said.contains("a key has no value")),
            "{said:?}"
        );
    }
}
