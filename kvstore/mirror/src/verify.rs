//! Compares the copy with the store, key by key, both at the revision that the copy has.
//! Invariant: what is compared does not change meanwhile: the copy is looked at in one transaction, the store at one
//! revision. Tables are compared with what the keys of the copy make. Leases and kept answers have no past in the store:
//! those are compared that both have, and what may have ended or come since is no difference.

use std::collections::HashMap;

use anyhow::Context as _;
use kvstore_client::wire::level::Consistency;
use kvstore_client::wire::mirror::{Granted, KeptAnswer};
use kvstore_client::{KvClient, RangeRequest, ReadOptions};
use serde::Serialize;

use crate::copy::{Maps, View};
use crate::row::{Change, Row};
use crate::shape::{self, TABLES};

/// Of the copy.
const PAGE_ROWS: usize = 5000;
/// Differences that are told; all are counted.
const TOLD_MAX: usize = 100;
/// Longer parts of keys are hashes of secrets, most likely.
const SEGMENT_CHARS_MAX: usize = 24;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) revision: u64,
    pub(crate) equal: bool,
    pub(crate) keys: u64,
    pub(crate) differences_count: u64,
    pub(crate) differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    key: String,
    difference: &'static str,
}

impl Verdict {
    fn differ(&mut self, key: &str, difference: &'static str) {
        self.differences_count += 1;
        if self.differences.len() < TOLD_MAX {
            let key = shown(key);
            self.differences.push(Difference { key, difference });
        }
    }
}

fn shown(key: &str) -> String {
    let parts = key
        .split('/')
        .map(|part| match part.char_indices().nth(SEGMENT_CHARS_MAX) {
            Some(_) => format!("{}…", part.chars().take(6).collect::<String>()),
            None => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join("/")
}

/// Walks both sides in the order of the keys.
pub(crate) async fn compare(client: &KvClient, view: View) -> anyhow::Result<Verdict> {
    let revision = view.head().revision;
    anyhow::ensure!(revision > 0, "nothing was copied yet");
    let range = RangeRequest {
        read: ReadOptions {
            consistency: Consistency::AtLeast(revision),
            revision: Some(revision),
        },
        ..RangeRequest::prefix("")
    };
    let mut walk = client.pages(range);
    let mut verdict = Verdict {
        revision,
        ..Verdict::default()
    };
    let leases = client.granted(revision).await?;
    let mut ours = Ours::of(view, leases);
    while let Some(page) = walk.next().await? {
        let theirs: Vec<Row> = page.kvs.into_iter().map(Row::from).collect();
        (ours, verdict) = blocking(move || {
            ours.compare_page(theirs, &mut verdict)?;
            Ok((ours, verdict))
        })
        .await?;
    }
    (ours, verdict) = compare_answers(client, ours, verdict).await?;
    blocking(move || {
        ours.compare_rest(&mut verdict)?;
        ours.compare_tables(&mut verdict)?;
        verdict.keys = ours.seen;
        verdict.equal = verdict.differences_count == 0;
        Ok(verdict)
    })
    .await
}

async fn compare_answers(
    client: &KvClient,
    mut ours: Ours,
    mut verdict: Verdict,
) -> anyhow::Result<(Ours, Verdict)> {
    let mut after: Option<(String, String)> = None;
    loop {
        let last = after.as_ref().map(|(owner, key)| (owner.as_str(), key.as_str()));
        let page = client.kept_answers(last, verdict.revision).await?;
        let (answers, more) = (page.answers, page.more);
        let end = answers.last();
        after = end.map(|last| (last.owner.clone(), last.key.clone()));
        (ours, verdict) = blocking(move || {
            ours.compare_answers(&answers, &mut verdict)?;
            Ok((ours, verdict))
        })
        .await?;
        if !more {
            return Ok((ours, verdict));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("compare")?
}

/// Our side, a page at a time.
struct Ours {
    view: View,
    page: std::collections::VecDeque<Row>,
    after: Option<String>,
    seen: u64,
    /// Those that live, by their ids, as the store has them.
    leases: HashMap<u64, Granted>,
    /// What our keys make of the tables.
    maps: Maps,
}

impl Ours {
    fn of(view: View, leases: Vec<Granted>) -> Self {
        Self {
            view,
            page: std::collections::VecDeque::new(),
            after: None,
            seen: 0,
            leases: leases.into_iter().map(|lease| (lease.id, lease)).collect(),
            maps: Maps::default(),
        }
    }

    fn peek(&mut self) -> anyhow::Result<Option<&Row>> {
        if self.page.is_empty() {
            self.page = self.view.after(self.after.as_deref(), PAGE_ROWS)?.into();
            if let Some(last) = self.page.back() {
                self.after = Some(last.key.clone());
            }
        }
        Ok(self.page.front())
    }

    fn take(&mut self) -> Option<Row> {
        let row = self.page.pop_front()?;
        self.seen += 1;
        for edit in shape::effect(&Change::Put(row.clone())).edits {
            self.maps.edit(edit);
        }
        Some(row)
    }

    fn compare_page(&mut self, theirs: Vec<Row>, verdict: &mut Verdict) -> anyhow::Result<()> {
        for their in theirs {
            while self.peek()?.is_some_and(|our| our.key < their.key) {
                let extra = self.take().expect("it was just looked at");
                verdict.differ(&extra.key, "only in the copy");
            }
            if self.peek()?.is_none_or(|our| our.key != their.key) {
                verdict.differ(&their.key, "not in the copy");
                continue;
            }
            let mut our = self.take().expect("it was just looked at");
            // Pages do not tell of leases more than their ids.
            let granted = our.granted.take();
            let lease = self.leases.get(&our.lease);
            if our.value != their.value {
                verdict.differ(&their.key, "another value");
            } else if our != their {
                verdict.differ(&their.key, "another revision, version or lease");
            } else if lease.is_some() && lease != granted.as_ref() {
                verdict.differ(&their.key, "another time or owner of its lease");
            }
        }
        Ok(())
    }

    /// The store also keeps answers of what changed nothing, which no copy gets while it follows.
    fn compare_answers(&self, theirs: &[KeptAnswer], verdict: &mut Verdict) -> anyhow::Result<()> {
        for their in theirs {
            let our = self.view.answer(&their.owner, &their.key)?;
            let same =
                |our: &KeptAnswer| (&our.fingerprint, &our.reply) == (&their.fingerprint, &their.reply);
            if our.is_some_and(|our| our.revision == their.revision && !same(&our)) {
                verdict.differ(&format!("kept answer of {}", their.owner), "another answer");
            }
        }
        Ok(())
    }

    fn compare_rest(&mut self, verdict: &mut Verdict) -> anyhow::Result<()> {
        while self.peek()?.is_some() {
            let extra = self.take().expect("it was just looked at");
            verdict.differ(&extra.key, "only in the copy");
        }
        Ok(())
    }

    fn compare_tables(&self, verdict: &mut Verdict) -> anyhow::Result<()> {
        for table in TABLES {
            let (made, found) = (self.maps.select(table, &[]), self.view.select(table, &[])?);
            if made != found {
                verdict.differ(table.name, "the table is not what the keys make");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_looks_like_a_secret_is_not_told() {
        let hash = "5".repeat(64);
        assert_eq!(
            shown(&format!("shop/one/live/session/{hash}")),
            "shop/one/live/session/555555…"
        );
        assert_eq!(
            shown("shop/one/live/goods/7/stock"),
            "shop/one/live/goods/7/stock"
        );
    }
}
