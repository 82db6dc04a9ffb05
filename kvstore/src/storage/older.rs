//! Rows as nodes of before wrote them, so that tests meet what a node finds on its disk after an upgrade.

use rocksdb::{IteratorMode, WriteBatch};

use super::events::changes;
use super::machine_db::{ANSWERS, EVENTS, MachineDb, encode, without_wal};

type Row = (Box<[u8]>, Box<[u8]>);

impl MachineDb {
    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        let rows = self.db.iterator_cf(self.table(table), IteratorMode::Start);
        rows.map(|row| row.expect("the table is read")).collect()
    }

    /// Takes away what rows say that they did not say once.
    pub(crate) fn make_older(&self) {
        let mut batch = WriteBatch::default();
        for (at, row) in self.rows(EVENTS) {
            batch.put_cf(self.table(EVENTS), at, encode(&changes(&row)));
        }
        let expiries = self.rows(ANSWERS).into_iter();
        for (at, _counted) in expiries.filter(|(at, _)| at.starts_with(b"x")) {
            batch.put_cf(self.table(ANSWERS), at, []);
        }
        self.db
            .write_opt(batch, &without_wal())
            .expect("the database takes the rows");
    }
}
