//! Walking all pages of a range at one revision.
//! Invariant: every page shows the revision of the first, which a pin keeps readable meanwhile.
//! An abandoned walk's pin runs out by itself.

use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::RangeRequest;
use crate::wire::kv::{KeyValue, Page};
use crate::wire::{LeaseId, Revision};
use tokio::time::{Duration, Instant};

const PIN_TTL: Duration = Duration::from_secs(30);
/// A pin is not worth more: the store has one of its own for each walk.
const PIN_WAIT: Duration = Duration::from_millis(300);

/// Everything below a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
}

/// A walk from page to page. Drive it to its end, or drop it.
#[derive(Debug)]
pub struct PageWalk {
    client: KvClient,
    next: Option<RangeRequest>,
    revision: Option<Revision>,
    pin: Pin,
}

#[derive(Debug)]
enum Pin {
    /// No page has had a next one yet.
    Unasked,
    Held {
        lease: LeaseId,
        /// When its renewal was tried last.
        renewed: Instant,
    },
    /// There was none to be had, or it is no longer needed.
    Without,
}

impl KvClient {
    /// All pages of `range`, as large as its limit says.
    pub fn pages(&self, range: RangeRequest) -> PageWalk {
        PageWalk {
            client: self.with_own_keys(),
            // Whoever walks all pages can count them.
            next: Some(RangeRequest {
                uncounted: true,
                ..range
            }),
            revision: None,
            pin: Pin::Unasked,
        }
    }

    /// Everything below `prefix` at one revision. For what fits in memory: `pages` bounds it.
    pub async fn scan(&self, prefix: &str) -> Result<Scan> {
        let mut walk = self.pages(RangeRequest::prefix(prefix));
        let mut kvs = Vec::new();
        let mut revision = 0;
        while let Some(page) = walk.next().await? {
            revision = page.revision;
            kvs.extend(page.kvs);
        }
        Ok(Scan { revision, kvs })
    }
}

impl PageWalk {
    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Page>> {
        let Some(range) = self.next.clone() else {
            return Ok(None);
        };
        self.renew_pin().await;
        let page = self.client.range(range.clone()).await?;
        let revision = *self.revision.get_or_insert(page.revision);
        if page.revision != revision {
            return Err(Error::Protocol {
                detail: "a later page of another revision than the first",
                source: None,
            });
        }
        self.next = match (&page.cursor, page.more) {
            (Some(cursor), true) => Some(RangeRequest {
                cursor: Some(cursor.clone()),
                ..range
            }),
            _ => None,
        };
        match (&self.next, &self.pin) {
            (Some(_), Pin::Unasked) => self.pin(revision).await,
            (None, Pin::Held { .. }) => self.unpin().await,
            _ => {}
        }
        Ok(Some(page))
    }

    /// A store that has no room for a pin, or that takes no writes, must not hold up the walk.
    fn brief(&self) -> KvClient {
        self.client.with_deadline(PIN_WAIT.min(self.client.deadline()))
    }

    /// Without a pin the walk goes on: it can then only end early, with `Compacted`. It is asked for once, since who
    /// was refused now would most likely be refused after each page.
    async fn pin(&mut self, revision: Revision) {
        let renewed = Instant::now();
        self.pin = match self.brief().lease_pin(PIN_TTL, revision).await {
            Ok(lease) => Pin::Held {
                lease: lease.id,
                renewed,
            },
            Err(error) => {
                tracing::debug!(%error, revision, "page walk goes on without a pin");
                Pin::Without
            }
        };
    }

    async fn renew_pin(&mut self) {
        let Pin::Held { lease, renewed } = &mut self.pin else {
            return;
        };
        let (lease, sent) = (*lease, Instant::now());
        if sent - *renewed < PIN_TTL / 3 {
            return;
        }
        // Also if it fails: two more tries are left to it.
        *renewed = sent;
        if let Err(error) = self.brief().lease_keepalive(lease).await {
            tracing::debug!(%error, lease.id = lease, "pin not renewed");
        }
    }

    async fn unpin(&mut self) {
        if let Pin::Held { lease, .. } = std::mem::replace(&mut self.pin, Pin::Without)
            && let Err(error) = self.brief().lease_revoke(lease).await
        {
            tracing::debug!(%error, lease.id = lease, "pin not given back, it runs out by itself");
        }
    }
}
