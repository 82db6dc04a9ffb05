//! Tables as the engines know them: columns, keys, indexes, and edits of their rows.
//! Invariant: an edit touches one table, and names its rows by the first columns of the primary key.
//! It must not know what the columns mean.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The first so many columns are the primary key.
    pub(crate) key_columns: usize,
    pub(crate) columns: &'static [(&'static str, Kind)],
    pub(crate) indexes: &'static [&'static [&'static str]],
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Text(String),
}

/// What becomes of some rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) table: &'static Table,
    /// All columns of the key, or to remove several rows the first of them.
    pub(crate) key: Vec<Cell>,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// These columns get these values, of which one is something; the row is made where it is missing.
    Set(Vec<(&'static str, Cell)>),
    /// These columns lose theirs, if there is such a row; it goes when nothing but its key is left.
    Clear(Vec<&'static str>),
    Remove,
}

impl Table {
    pub(crate) fn key_names(&self) -> impl Iterator<Item = &'static str> {
        self.columns[..self.key_columns].iter().map(|(name, _)| *name)
    }

    fn kind(&self, name: &str) -> Kind {
        let found = self.columns.iter().find(|(known, _)| *known == name);
        found.expect("only columns of the table are set").1
    }

    pub(crate) fn set(&'static self, key: Vec<Cell>, cells: Vec<(&'static str, Cell)>) -> Edit {
        assert_eq!(key.len(), self.key_columns, "a row is made under its whole key");
        let cells: Vec<_> = cells
            .into_iter()
            .map(|(name, cell)| (name, cell.fit(self.kind(name))))
            .collect();
        // A row of nothing is none: otherwise it would hang on the order in which the keys that make it came and went.
        if cells.iter().all(|(_, cell)| *cell == Cell::Null) {
            return self.clear(key, cells.into_iter().map(|(name, _)| name));
        }
        Edit {
            table: self,
            key,
            what: What::Set(cells),
        }
    }

    /// For rows that several keys make: what one of them brought.
    pub(crate) fn clear(
        &'static self,
        key: Vec<Cell>,
        columns: impl IntoIterator<Item = &'static str>,
    ) -> Edit {
        Edit {
            table: self,
            key,
            what: What::Clear(columns.into_iter().collect()),
        }
    }

    pub(crate) fn remove(&'static self, key: Vec<Cell>) -> Edit {
        Edit {
            table: self,
            key,
            what: What::Remove,
        }
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Table {}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The least that is greater.
    pub(crate) fn successor(&self) -> Self {
        match self {
            Self::Null => Self::Integer(i64::MIN),
            Self::Integer(number) => number
                .checked_add(1)
                .map_or_else(|| Self::text(""), Self::Integer),
            Self::Text(text) => Self::Text(format!("{text}\0")),
        }
    }

    /// A plain value of JSON; anything else is kept as text.
    pub(crate) fn of(value: Option<&Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Null,
            Some(Value::Bool(yes)) => Self::Integer(i64::from(*yes)),
            Some(Value::String(text)) => Self::Text(text.clone()),
            Some(Value::Number(number)) if number.is_i64() => Self::Integer(number.as_i64().unwrap_or(0)),
            Some(other) => Self::Text(other.to_string()),
        }
    }

    /// As a column of this kind shows it. A database would make its own of a value of another kind, and no two engines
    /// the same; a text where a number should be is only in the raw table.
    fn fit(self, kind: Kind) -> Self {
        match (kind, self) {
            (Kind::Text, Self::Integer(number)) => Self::Text(number.to_string()),
            (Kind::Integer, Self::Text(_)) => Self::Null,
            (_, cell) => cell,
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}
