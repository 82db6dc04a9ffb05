//! What the clients were told: the fate of every put and of every addition.
//! Invariant: an operation under way is `Open`; only an answer makes it more than that.

use std::collections::BTreeMap;

use super::Gaps;

/// What is known of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate<T> {
    /// Acknowledged, with what the store said.
    Done(T),
    /// It may have happened, may happen yet, or never.
    Open,
    /// The store, or the client for it, said that it surely did not happen.
    Denied,
}

/// One addition to a counter, by its idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    pub(crate) counter: String,
    pub(crate) fate: Fate<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Revision of each key that was put once; its value follows from the key.
    pub(crate) puts: BTreeMap<String, Fate<u64>>,
    pub(crate) additions: BTreeMap<String, Addition>,
    pub(crate) gaps: Gaps,
    /// What the operations that did not end well ended with, by the words of the error.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Book {
    pub(crate) fn value_of(key: &str) -> String {
        format!("value of {key}")
    }

    pub(crate) fn acknowledged(&self) -> usize {
        let puts = self.puts.values();
        let additions = self.additions.values();
        puts.filter(|fate| matches!(fate, Fate::Done(_))).count()
            + additions
                .filter(|addition| matches!(addition.fate, Fate::Done(_)))
                .count()
    }

    /// Operations that clients saw fail, in whatever way.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn summary(&self) -> String {
        let attempted = self.puts.len() + self.additions.len();
        format!(
            "{} of {attempted} operations acknowledged, errors: {:?}",
            self.acknowledged(),
            self.errors
        )
    }
}
