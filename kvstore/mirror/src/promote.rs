//! A mirror's folder as the source of a new cluster, when no node of the old one is left.
//! Invariant: it is read in one transaction and not changed.

use std::path::Path;

use bytes::Bytes;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};

use crate::copy::{self, View};

const PAGE_ROWS: usize = 10_000;

/// A key with everything that the store kept about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedRow {
    pub key: String,
    pub value: Bytes,
    pub created: u64,
    pub modified: u64,
    pub version: u64,
    /// 0: none.
    pub lease: u64,
    /// The lease itself, as far as the mirror knows it.
    pub granted: Option<Granted>,
}

/// All rows, in the order of their keys.
pub struct Source {
    view: View,
    page: std::vec::IntoIter<PromotedRow>,
    after: Option<String>,
}

impl Source {
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let view = copy::open_to_read(folder)?.view()?;
        anyhow::ensure!(
            view.head().revision > 0,
            "this mirror has not copied anything yet"
        );
        Ok(Self {
            view,
            page: Vec::new().into_iter(),
            after: None,
        })
    }

    /// The revision that the mirror got to.
    pub fn revision(&self) -> u64 {
        self.view.head().revision
    }

    /// The cluster that it is a copy of.
    pub fn cluster(&self) -> &str {
        &self.view.head().cluster
    }

    pub fn keys(&self) -> anyhow::Result<u64> {
        self.view.count()
    }

    /// Answers kept for idempotency keys that have not ended.
    pub fn answers(&self) -> anyhow::Result<Vec<KeptAnswer>> {
        self.view.answers()
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        let rows = self.view.after(self.after.as_deref(), PAGE_ROWS)?;
        if let Some(last) = rows.last() {
            self.after = Some(last.key.clone());
        }
        let rows = rows.into_iter().map(|row| PromotedRow {
            key: row.key,
            value: row.value,
            created: row.created,
            modified: row.modified,
            version: row.version,
            lease: row.lease,
            granted: row.granted,
        });
        self.page = rows.collect::<Vec<_>>().into_iter();
        Ok(())
    }
}

impl Iterator for Source {
    type Item = anyhow::Result<PromotedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}
