//! `GET /v1/ledger/check`: walks the whole ledger at one revision and hands it to the tally.
//! Invariant: every page shows the same revision, which a pin keeps from being compacted meanwhile.

use kvstore_client::wire::Revision;
use kvstore_client::{RangeRequest, ReadOptions};
use payment_client::Money;
use payment_client::wire::{LedgerCheck, TrialBalance};
use service::problem::Result;

use super::tally::{Tally, Total};
use super::{Ledger, keys, trouble};

/// So few that a page is read well within the time of a single try, also on a busy machine.
const PAGE_ROWS: u32 = 2000;

impl Ledger {
    pub(crate) async fn check(&self, revision: Option<Revision>) -> Result<LedgerCheck> {
        let revision = match revision {
            Some(revision) => revision,
            None => self.client.revision().await.map_err(trouble)?,
        };
        let mut tally = Tally::default();
        // Payments last: by then all is known that has to lead to them.
        for prefix in [
            keys::CARDS,
            keys::DUE,
            keys::FUNDED,
            keys::FUNDING,
            keys::MERCHANTS,
            keys::ORDERS,
            keys::PAYMENTS,
        ] {
            let mut walk = self.client.pages(RangeRequest {
                limit: Some(PAGE_ROWS),
                read: ReadOptions {
                    revision: Some(revision),
                    ..ReadOptions::default()
                },
                ..RangeRequest::prefix(prefix)
            });
            while let Some(page) = walk.next().await.map_err(trouble)? {
                for kv in &page.kvs {
                    tally.row(&kv.key, &kv.bytes());
                }
            }
        }
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
