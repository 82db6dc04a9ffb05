//! Cards for generators to pay with, of a range of their own.
//! Invariant: each has more than a run can spend.

use anyhow::Context as _;
use futures_util::future::join_all;
use payment_client::wire::CardStatus;
use payment_client::{Currency, Money, PaymentClient};

const BALANCE_MINOR: i64 = 1_000_000_000;

/// Cards of a range of their own, each brought to more than it can spend.
pub(crate) async fn open_cards(operator: &PaymentClient, count: u32) -> anyhow::Result<Vec<String>> {
    const AT_ONCE: usize = 16;
    let cards: Vec<String> = (0..count).map(card_number).collect();
    let balance = Money::new(BALANCE_MINOR, Currency::EUR);
    for some in cards.chunks(AT_ONCE) {
        let opened = some
            .iter()
            .map(|card| operator.open_card(card, balance, CardStatus::Active));
        for result in join_all(opened).await {
            result.context("open the cards to pay with")?;
        }
    }
    Ok(cards)
}

/// A Visa number with its check digit.
fn card_number(n: u32) -> String {
    let digits = format!("49990000{n:07}");
    let sum: u32 = digits
        .bytes()
        .rev()
        .zip([2, 1].into_iter().cycle())
        .map(|(byte, times)| {
            let digit = u32::from(byte - b'0') * times;
            digit / 10 + digit % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_cards_are_valid() {
        for n in 0..1000 {
            let number = super::card_number(n);
            assert!(payment::CardNumber::parse(&number).is_ok(), "{number}");
        }
    }
}
