//! Walking all pages of a range at one revision.
//! Invariant: every page shows the revision of the first, which a pin keeps readable meanwhile.
//! An abandoned walk's pin runs out by itself.

use crate::client::KvClient;
use crate::error::{Error, Result};
use crate::keys::RangeRequest;
use crate::leases::is_gone;
use crate::wire::Revision;
use crate::wire::kv::{KeyValue, Page};
use crate::wire::lease::Lease;
use tokio::time::{Duration, Instant};

const PIN_TTL: Duration = Duration::from_secs(30);
/// A pin is not worth more: the store pins what is walked over too. As long as the first try of any call, since a node
/// that does not answer in time is taken for one that fails, also by others who ask it.
const PIN_WAIT: Duration = Duration::from_millis(400);

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
struct Pin {
    held: Option<Lease>,
    /// When it is asked for, or renewed, next.
    due: Instant,
}

impl Pin {
    /// Takes in what became of asking for it, or for its renewal.
    fn heard(&mut self, sent: Instant, answer: &Result<Lease>) {
        let wait = match (answer, self.held) {
            (Ok(lease), _) => {
                self.held = Some(*lease);
                ttl(*lease) / 3
            }
            // It ran out, perhaps because the pages are taken slowly. What it kept may still be there.
            (Err(error), Some(_)) if is_gone(error) => {
                self.held = None;
                Duration::ZERO
            }
            // Soon, so that several tries are left to it.
            (Err(_), Some(lease)) => ttl(lease) / 6,
            // Who was refused now would most likely be refused after each page, but a change of leader passes.
            (Err(_), None) => PIN_TTL / 3,
        };
        self.due = sent + wait;
    }
}

fn ttl(lease: Lease) -> Duration {
    Duration::from_millis(lease.ttl_ms)
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
            pin: Pin {
                held: None,
                due: Instant::now(),
            },
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
        // Whoever takes the pages may have taken long over the one before.
        if let Some(revision) = self.revision {
            self.keep_pin(revision).await;
        }
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
        if self.next.is_some() {
            self.keep_pin(revision).await;
        } else {
            self.unpin().await;
        }
        Ok(Some(page))
    }

    /// A store that has no room for a pin, or that takes no writes, must not hold up the walk.
    fn brief(&self) -> KvClient {
        self.client.briefly(PIN_WAIT)
    }

    /// Asks for the pin or renews it, where that is due. Without one the walk goes on: it can then only end early, with
    /// `Compacted`.
    async fn keep_pin(&mut self, revision: Revision) {
        let sent = Instant::now();
        if sent < self.pin.due {
            return;
        }
        let client = self.brief();
        let answer = match self.pin.held {
            Some(lease) => client.lease_keepalive(lease.id).await,
            None => client.lease_pin(PIN_TTL, revision).await,
        };
        if let Err(error) = &answer {
            tracing::debug!(%error, revision, "page walk goes on, its pin not had or not renewed");
        }
        self.pin.heard(sent, &answer);
    }

    async fn unpin(&mut self) {
        if let Some(lease) = self.pin.held.take()
            && let Err(error) = self.brief().lease_revoke(lease.id).await
        {
            tracing::debug!(%error, lease.id = lease.id, "pin not given back, it runs out by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Trouble;
    use crate::wire::problem::Problem;

    #[test]
    fn a_pin_is_asked_for_again_and_renewed_the_sooner_after_a_failure() {
        let sent = Instant::now();
        let mut pin = Pin {
            held: None,
            due: sent,
        };
        let mut heard = |answer: Result<Lease>| {
            pin.heard(sent, &answer);
            (pin.held.is_some(), pin.due - sent)
        };
        let lease = Lease { id: 5, ttl_ms: 6000 };
        let failed = || {
            Err(Error::Unavailable {
                source: Trouble::Timeout,
            })
        };
        let gone = Problem {
            code: "lease-not-found".to_owned(),
            ..Problem::default()
        };
        assert_eq!(heard(failed()), (false, PIN_TTL / 3));
        assert_eq!(heard(Ok(lease)), (true, Duration::from_secs(2)));
        assert_eq!(heard(failed()), (true, Duration::from_secs(1)));
        let gone = Err(Error::Problem(Box::new(gone)));
        assert_eq!(heard(gone), (false, Duration::ZERO), "at once");
    }
}
