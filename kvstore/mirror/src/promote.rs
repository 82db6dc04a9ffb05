//! A mirror's folder as the source of a new cluster, when no node of the old one is left.
//! Invariant: it is read in one transaction and not changed.

use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use service::config::MirrorEngine;

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
        Self::choose(folder, None)
    }

    /// With what the configuration says of it, which counts where the engine was changed.
    pub fn open_configured(folder: &Path, engine: MirrorEngine) -> anyhow::Result<Self> {
        Self::choose(folder, Some(engine))
    }

    fn choose(folder: &Path, configured: Option<MirrorEngine>) -> anyhow::Result<Self> {
        let mut copies = Vec::new();
        for (engine, reader) in copy::open_to_read(folder)? {
            let view = reader.view()?;
            if view.head().revision > 0 {
                copies.push((Some(engine) == configured, view));
            }
        }
        // Of one cluster, whoever got further has all that the other one has.
        copies.sort_by_key(|(configured, view)| (view.head().revision, *configured));
        if let [(_, one), (_, other)] = copies.as_slice()
            && one.head().cluster != other.head().cluster
        {
            anyhow::ensure!(
                configured.is_some(),
                "here are copies of two clusters: {} up to revision {}, and {} up to revision {}. Move mirror.db (with \
                 mirror.db-wal) or kv.json away, or say which mirror of the configuration this is",
                one.head().cluster,
                one.head().revision,
                other.head().cluster,
                other.head().revision
            );
            copies.retain(|(configured, _)| *configured);
        }
        let (_, view) = copies.pop().context("this mirror has not copied anything yet")?;
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

#[cfg(test)]
mod tests {
    use service::config::MirrorEngine::{Json, Sqlite};
    use service::config::MirrorMode;

    use super::*;
    use crate::row::Row;

    fn has_copied(folder: &Path, engine: MirrorEngine, revision: u64, cluster: &str) {
        let (mut writer, _reader) = copy::open(folder, engine, MirrorMode::Sync, 0).unwrap();
        let row = Row {
            key: format!("{engine:?}"),
            ..Row::default()
        };
        writer.begin_rebuild().unwrap();
        writer.rebuild_rows(vec![row]).unwrap();
        writer.end_rebuild(revision, cluster).unwrap();
    }

    /// The key says which copy was taken.
    fn taken(source: anyhow::Result<Source>) -> String {
        match source {
            Ok(mut source) => source.next().unwrap().unwrap().key,
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn of_two_copies_the_one_that_is_kept_up_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        drop(copy::open(folder, Json, MirrorMode::Sync, 0).unwrap());
        let nothing = taken(Source::open(folder));
        assert!(nothing.contains("not copied anything"), "{nothing}");
        has_copied(folder, Sqlite, 5, "one");
        assert_eq!(taken(Source::open(folder)), "Sqlite");
        // The engine was changed, and all was lost before the first copy in it was whole.
        assert_eq!(taken(Source::open_configured(folder, Json)), "Sqlite");
        has_copied(folder, Json, 9, "one");
        assert_eq!(taken(Source::open(folder)), "Json");
        assert_eq!(taken(Source::open_configured(folder, Json)), "Json");
        has_copied(folder, Json, 3, "two");
        assert_eq!(taken(Source::open_configured(folder, Json)), "Json");
        assert_eq!(taken(Source::open_configured(folder, Sqlite)), "Sqlite");
        let refused = taken(Source::open(folder));
        assert!(
            refused.contains("two clusters: two up to revision 3, and one up to revision 5"),
            "{refused}"
        );
    }
}
