//! Cards for generators to pay with, of a range of their own.
//! Invariant: each has more than a run can spend, and no number is one that compression would change much, so that whoever
//! looks for one in the files of a run finds it where it was written.

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

/// A Visa number with its check digit. Its digits are scattered, and strange ones stand between them, so that none comes
/// many times in a row.
fn card_number(n: u32) -> String {
    const NUMBERS: u64 = 10_000_000;
    const SCATTERED_BY: u64 = 7_654_321;
    let scattered = (u64::from(n) + 1) * SCATTERED_BY % NUMBERS;
    let mut digits = "49".to_owned();
    for (digit, strange) in format!("{scattered:07}").chars().zip("1738260".chars()) {
        digits.extend([digit, strange]);
    }
    digits.truncate(15);
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
    use std::collections::BTreeSet;

    use super::card_number;

    #[test]
    fn the_cards_are_valid_and_each_is_another() {
        let numbers: BTreeSet<String> = (0..1000).map(card_number).collect();
        assert_eq!(numbers.len(), 1000);
        for number in numbers {
            assert!(payment::CardNumber::parse(&number).is_ok(), "{number}");
        }
        // Tests look for this one in files.
        assert_eq!(card_number(0), "4971675348322617");
    }

    /// LZ4 leaves out what it has met before, if that is four bytes or more.
    #[test]
    fn no_card_has_in_it_what_compression_would_leave_out() {
        const LEFT_OUT: usize = 4;
        for number in (0..1000).map(card_number) {
            let mut parts = BTreeSet::new();
            let mut windows = number.as_bytes().windows(LEFT_OUT);
            assert!(windows.all(|part| parts.insert(part)), "{number}");
        }
    }
}
