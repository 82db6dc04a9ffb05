//! The proof that no token appeared or vanished: what was brought and paid out, against what is there.
//! Invariant: all of it is of one revision, and what was brought is summed from records that are never changed.

use kvstore_client::wire::Revision;
use kvstore_client::{RangeRequest, ReadOptions};
use serde::Serialize;
use serde_json::value::RawValue;
use service::problem::Result;

use super::keys;
use super::network::{Bank, inconsistent};
use super::records::{self, Book, Funding, FundingRecord, ModelRecord};
use super::tokens;
use crate::process::trouble;

const PAGE_ROWS: u32 = 2000;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ledger {
    revision: Revision,
    /// Brought, less what was paid out.
    supply: Box<RawValue>,
    supply_micro: u64,
    /// Of the models that take part, ejected ones too.
    stakes: Box<RawValue>,
    stakes_micro: u64,
    treasury: Box<RawValue>,
    treasury_micro: u64,
    /// Of models that are leaving, as long as open rounds depend on them.
    escrow: Box<RawValue>,
    escrow_micro: u64,
    pub(crate) conserved: bool,
    models: usize,
    settlements: u64,
    open_rounds: i64,
}

impl Bank {
    pub(crate) async fn ledger(&self, revision: Option<Revision>) -> Result<Ledger> {
        let revision = match revision {
            Some(revision) => revision,
            None => self.client.revision().await.map_err(trouble)?,
        };
        let read = ReadOptions {
            revision: Some(revision),
            ..ReadOptions::default()
        };
        let book = self.client.get_with(keys::BOOK, read).await.map_err(trouble)?;
        let book: Book = match book {
            Some(kv) => records::read(keys::BOOK, &kv.bytes())?,
            // Before the network was set up there was nothing; had there been anything, the sums would not agree.
            None => Book::default(),
        };
        let mut sums = Sums::default();
        for prefix in [keys::MODELS, keys::FUNDINGS] {
            let mut walk = self.client.pages(RangeRequest {
                limit: Some(PAGE_ROWS),
                read,
                ..RangeRequest::prefix(prefix)
            });
            while let Some(page) = walk.next().await.map_err(trouble)? {
                for kv in &page.kvs {
                    sums.add(prefix, &kv.key, &kv.bytes())?;
                }
            }
        }
        let Sums {
            supply_micro,
            stakes_micro,
            escrow_micro,
            models,
        } = sums;
        let open = self
            .client
            .get_with(keys::OPEN_COUNT, read)
            .await
            .map_err(trouble)?;
        let open = open.and_then(|kv| std::str::from_utf8(&kv.bytes()).ok()?.parse().ok());
        let conserved = stakes_micro + escrow_micro + book.treasury_micro == supply_micro;
        if !conserved {
            tracing::error!(
                revision,
                supply_micro,
                stakes_micro,
                escrow_micro,
                "the ledger of stakes is not conserved"
            );
        }
        Ok(Ledger {
            revision,
            supply: tokens::json(supply_micro),
            supply_micro,
            stakes: tokens::json(stakes_micro),
            stakes_micro,
            treasury: tokens::json(book.treasury_micro),
            treasury_micro: book.treasury_micro,
            escrow: tokens::json(escrow_micro),
            escrow_micro,
            conserved,
            models,
            settlements: book.settlements,
            open_rounds: open.unwrap_or(0),
        })
    }
}

/// What is there, and what was brought for it.
#[derive(Default)]
struct Sums {
    supply_micro: u64,
    stakes_micro: u64,
    escrow_micro: u64,
    models: usize,
}

impl Sums {
    fn add(&mut self, prefix: &str, key: &str, value: &[u8]) -> Result<()> {
        if prefix == keys::MODELS {
            let model: ModelRecord = records::read(key, value)?;
            let sum = if model.unbonding {
                &mut self.escrow_micro
            } else {
                &mut self.stakes_micro
            };
            *sum += model.account.stake_micro;
            self.models += 1;
            return Ok(());
        }
        let funding: FundingRecord = records::read(key, value)?;
        let moved = match funding.kind {
            Funding::Endowment | Funding::Deposit => self.supply_micro.checked_add(funding.amount_micro),
            Funding::Payout => self.supply_micro.checked_sub(funding.amount_micro),
        };
        self.supply_micro = moved.ok_or_else(|| inconsistent("more was paid out than was brought"))?;
        Ok(())
    }
}
