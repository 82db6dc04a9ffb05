//! Cards for trying out, opened on the first start of a demo system.
//! Invariant: they are opened once in the life of a store. The mark that says so is written after them, and opening
//! them twice does no harm, so a process may die in between and two may do it at the same time.

use payment_client::wire::CardStatus;
use payment_client::{Currency, Money};
use service::problem::{Problem, Result};

use crate::domain::CardNumber;
use crate::ledger::{Ledger, Opening};
use crate::vault::Vault;

/// Number, what is on it in cents, and whether it is blocked.
pub const CARDS: [(&str, i64, CardStatus); 5] = [
    ("4242 4242 4242 4242", 1_000_000, CardStatus::Active),
    ("5555 5555 5555 4444", 50_000, CardStatus::Active),
    ("3782 822463 10005", 5_000, CardStatus::Active),
    ("4000 0000 0000 9995", 0, CardStatus::Active),
    ("4000 0000 0000 0002", 0, CardStatus::Blocked),
];

pub(crate) async fn open_cards(ledger: &Ledger, vault: &Vault) -> Result<()> {
    if ledger.is_demo_open().await? {
        return Ok(());
    }
    for (number, minor, status) in CARDS {
        let number = CardNumber::parse(number)
            .map_err(|fault| Problem::internal("open the cards for trying out", fault))?;
        let opening = Opening {
            card: vault.card(&number),
            balance: Money::new(minor, Currency::EUR),
            status: Some(status),
        };
        ledger.open_new_card(&opening).await?;
    }
    ledger.mark_demo_open().await?;
    tracing::info!(cards = CARDS.len(), "opened the cards for trying out");
    Ok(())
}
