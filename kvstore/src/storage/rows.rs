//! Every row of the databases of a node that has stopped, for whoever has to see all that it keeps: what is compressed
//! does not stand in a file as it was written.
//! Invariant: nothing is left out, history included, and no byte is changed.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{DB, Options};

use super::generations::Generations;

/// The folders of the log and of the state that counts, of the node whose folder this is.
pub fn databases_in(node: &Path) -> io::Result<[PathBuf; 2]> {
    let state = Generations::current_in(node.join("sm"))?;
    Ok([node.join("raft/db"), state])
}

/// Sees a table's name, a key and its value.
type Visit<'v> = &'v mut dyn FnMut(&str, &[u8], &[u8]);

/// Shows the name of its table, the key and the value of each row of a database that nobody has open.
pub fn visit_rows(database: &Path, visit: Visit<'_>) -> io::Result<()> {
    visit_all(database, visit).map_err(io::Error::other)
}

fn visit_all(database: &Path, visit: Visit<'_>) -> Result<(), rocksdb::Error> {
    let options = Options::default();
    let tables = DB::list_cf(&options, database)?;
    // What the log alone has, and no table yet, is read too.
    let db = DB::open_cf_for_read_only(&options, database, &tables, false)?;
    for name in &tables {
        let table = db
            .cf_handle(name)
            .expect("all tables are opened with the database");
        let mut cursor = db.raw_iterator_cf(table);
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            visit(name, key, value);
            cursor.next();
        }
        cursor.status()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rocksdb::{BottommostLevelCompaction, CompactOptions};

    use super::*;
    use crate::storage::damage::Damage;
    use crate::storage::log_db::{LogBatch, LogDb};
    use crate::storage::machine_db::{HEADS, MachineDb, MachineMemory, VERSIONS, without_wal};

    const NUMBER: &[u8] = b"4999000000000003";

    fn contains(text: &[u8]) -> bool {
        text.windows(NUMBER.len()).any(|part| part == NUMBER)
    }

    /// The tables in which a row has the number.
    fn found_in(database: &Path) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut look = |table: &str, key: &[u8], value: &[u8]| {
            if contains(key) || contains(value) {
                found.insert(table.to_owned());
            }
        };
        visit_rows(database, &mut look).unwrap();
        found
    }

    fn stands_in_a_file(folder: &Path) -> bool {
        let files = std::fs::read_dir(folder).unwrap();
        let mut files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.any(|content| contains(&content))
    }

    #[test]
    fn what_was_compressed_is_found_though_no_file_has_it_as_it_was_written() {
        let node = tempfile::tempdir().unwrap();
        let [_log, state] = databases_in(node.path()).unwrap();
        let memory = MachineMemory {
            memtable_bytes: 1 << 20,
            cache_bytes: 1 << 20,
            records: 0,
        };
        // Behind many zeros, those of the number are no news.
        let value = [[b'0'; 4096].as_slice(), NUMBER, &[b'x'; 64]].concat();
        {
            let damage = Damage::watch_over(node.path()).unwrap();
            let machine = MachineDb::open(&state, memory, damage).unwrap();
            for table in [HEADS, VERSIONS] {
                let put = machine
                    .db
                    .put_cf_opt(machine.table(table), b"key", &value, &without_wal());
                put.unwrap();
            }
            machine.flush().unwrap();
            let mut compaction = CompactOptions::default();
            compaction.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            for table in [HEADS, VERSIONS] {
                let all = None::<&[u8]>;
                machine
                    .db
                    .compact_range_cf_opt(machine.table(table), all, all, &compaction);
            }
        }
        assert!(!stands_in_a_file(&state), "it is not compressed");
        let expected = [HEADS, VERSIONS].map(str::to_owned);
        assert_eq!(found_in(&state), BTreeSet::from(expected));
    }

    #[test]
    fn what_the_log_has_is_found_before_it_is_in_a_table() {
        let node = tempfile::tempdir().unwrap();
        let [log, _state] = databases_in(node.path()).unwrap();
        {
            let db = LogDb::open(&log, 1 << 20).unwrap();
            let mut batch = LogBatch::default();
            db.put_entry(&mut batch, 7, NUMBER);
            db.commit(batch).unwrap();
        }
        assert_eq!(found_in(&log), BTreeSet::from(["log".to_owned()]));
    }
}
