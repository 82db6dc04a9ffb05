//! The tables as maps in memory: what the JSON copy answers from, and what a copy in SQLite is compared with.

use std::collections::BTreeMap;

use super::Record;
use crate::shape::{Cell, Edit, TABLES, Table, What};

type Rows = BTreeMap<Vec<Cell>, BTreeMap<&'static str, Cell>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Maps {
    tables: BTreeMap<&'static str, Rows>,
}

impl Maps {
    pub(crate) fn edit(&mut self, edit: Edit) {
        let rows = self.tables.entry(edit.table.name).or_default();
        match edit.what {
            What::Set(cells) => rows.entry(edit.key).or_default().extend(cells),
            What::Clear(columns) => {
                if let Some(row) = rows.get_mut(&edit.key) {
                    row.retain(|name, _| !columns.contains(name));
                    if row.values().all(|cell| *cell == Cell::Null) {
                        rows.remove(&edit.key);
                    }
                }
            }
            What::Remove if edit.key.len() == edit.table.key_columns => {
                rows.remove(&edit.key);
            }
            What::Remove => {
                let under = rows.range(edit.key.clone()..).map(|(key, _)| key);
                let gone = under.take_while(|key| key.starts_with(&edit.key));
                for key in gone.cloned().collect::<Vec<_>>() {
                    rows.remove(&key);
                }
            }
        }
    }

    /// Rows whose key begins with these cells, with all columns of the table.
    pub(crate) fn select(&self, table: &'static Table, key: &[Cell]) -> Vec<Record> {
        let Some(rows) = self.tables.get(table.name) else {
            return Vec::new();
        };
        let under = rows.range(key.to_vec()..);
        let under = under.take_while(|(known, _)| known.starts_with(key));
        under.map(|(key, row)| record(table, key, row)).collect()
    }

    /// The same, but the last so many before the row of this next cell, the last first.
    pub(crate) fn last(
        &self,
        table: &'static Table,
        key: &[Cell],
        before: Option<&Cell>,
        limit: usize,
    ) -> Vec<Record> {
        let Some(rows) = self.tables.get(table.name) else {
            return Vec::new();
        };
        let mut end = key.to_vec();
        match (before, end.last_mut()) {
            (Some(before), _) => end.push(before.clone()),
            (None, Some(last)) => *last = last.successor(),
            (None, None) => return Vec::new(),
        }
        let under = rows.range(key.to_vec()..end).rev().take(limit);
        under.map(|(key, row)| record(table, key, row)).collect()
    }

    pub(crate) fn documents(&self) -> impl Iterator<Item = (&'static str, Vec<Record>)> {
        TABLES.iter().map(|table| (table.name, self.select(table, &[])))
    }
}

fn record(table: &Table, key: &[Cell], row: &BTreeMap<&'static str, Cell>) -> Record {
    let columns = table.columns.iter().enumerate().map(|(index, (name, _))| {
        let cell = key.get(index).or_else(|| row.get(name));
        ((*name).to_owned(), cell.unwrap_or(&Cell::Null).to_json())
    });
    columns.collect()
}
