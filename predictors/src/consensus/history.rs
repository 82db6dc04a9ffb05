//! The settlements of the past, page by page towards older ones.
//! Invariant: all pages of one walk show one revision; within a page, and across pages, none is missing or repeated.

use kvstore_client::wire::Revision;
use kvstore_client::{RangeRequest, ReadOptions};
use service::problem::Result;
use service::query;

use super::keys;
use super::network::Bank;
use super::records::{self, HistoryRecord};
use crate::process::trouble;

/// Which page: what stands before this settlement, at this revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) before: Option<u64>,
    pub(crate) revision: Option<Revision>,
}

#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The oldest first.
    pub(crate) rows: Vec<HistoryRecord>,
    pub(crate) next: Option<String>,
}

impl Cursor {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || query::malformed("The cursor is not one that this service gave out.");
        let (revision, before) = text.split_once('.').ok_or_else(wrong)?;
        let number = |text: &str| query::parse_number(text, "cursor");
        Ok(Self {
            before: Some(number(before)?),
            revision: Some(number(revision)?),
        })
    }
}

impl Bank {
    /// The last `limit` settlements, or those before the cursor.
    pub(crate) async fn history(&self, cursor: Cursor, limit: usize) -> Result<Page> {
        let range = RangeRequest {
            from: Some(keys::HISTORY.to_owned()),
            // The entry that holds the settlement before may begin anywhere below it.
            to: Some(keys::history(cursor.before.unwrap_or(u64::MAX / 2))),
            // Each entry holds at least one.
            limit: u32::try_from(limit + 1).ok(),
            descending: true,
            uncounted: true,
            read: ReadOptions {
                revision: cursor.revision,
                ..ReadOptions::default()
            },
            ..RangeRequest::default()
        };
        let page = self.client.range(range).await.map_err(trouble)?;
        let mut rows: Vec<HistoryRecord> = Vec::new();
        for kv in &page.kvs {
            let entry: Vec<HistoryRecord> = records::read(&kv.key, &kv.bytes())?;
            rows.extend(entry.into_iter().rev());
        }
        rows.retain(|row| cursor.before.is_none_or(|before| row.settlement < before));
        let more = rows.len() > limit;
        rows.truncate(limit);
        rows.reverse();
        let next = rows.first().filter(|_| more);
        Ok(Page {
            next: next.map(|row| format!("{}.{}", page.revision, row.settlement)),
            rows,
        })
    }
}
