//! `GET /v1/ledger/check`: walks the whole ledger at one revision and hands it to the tally.
//! Invariant: it is one walk over all of it, so that one pin, which the store takes with the first page and keeps up with
//! every other, holds the revision of all pages from being compacted. Walks one after the other would leave gaps.

use kvstore_client::wire::Revision;
use kvstore_client::{RangeRequest, ReadOptions};
use payment_client::Money;
use payment_client::wire::{LedgerCheck, TrialBalance};
use service::problem::Result;

use super::tally::{Tally, Total};
use super::{Ledger, keys, trouble};
use crate::points::Moment;

/// So few that a page is read well within the time of a single try, also on a busy machine.
const PAGE_ROWS: u32 = 2000;

impl Ledger {
    /// At the revision of its first page, unless another is wanted.
    pub(crate) async fn check(&self, revision: Option<Revision>) -> Result<LedgerCheck> {
        let mut walk = self.client.pages(RangeRequest {
            from: Some(keys::PROOF_FROM.to_owned()),
            to: Some(keys::PROOF_TO.to_owned()),
            limit: Some(PAGE_ROWS),
            read: ReadOptions {
                revision,
                ..ReadOptions::default()
            },
            ..RangeRequest::default()
        });
        let (mut tally, mut seen) = (Tally::default(), 0);
        loop {
            self.points.reach("check", Moment::BeforeRead).await;
            let page = walk.next().await;
            self.points.reach("check", Moment::AfterRead).await;
            let Some(page) = page.map_err(trouble)? else {
                break;
            };
            seen = page.revision;
            for kv in &page.kvs {
                tally.row(&kv.key, &kv.bytes());
            }
        }
        let revision = revision.unwrap_or(seen);
        let totals = tally.finish();
        if !tally.violations.is_empty() {
            tracing::error!(
                revision,
                violations = tally.violations.len(),
                first = tally.violations[0],
                "the ledger is not balanced"
            );
        }
        Ok(LedgerCheck {
            revision,
            balanced: tally.violations.is_empty(),
            currencies: totals.iter().map(trial_balance).collect(),
            violations: tally.violations,
        })
    }
}

fn trial_balance(total: &Total) -> TrialBalance {
    let json = |minor| Money::new(minor, total.currency).to_json();
    TrialBalance {
        currency: total.currency,
        debits: json(total.debits),
        debits_minor: total.debits,
        credits: json(total.credits),
        credits_minor: total.credits,
        holds: json(total.holds),
        holds_minor: total.holds,
    }
}
