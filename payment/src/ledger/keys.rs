//! Where everything stands in the store. All keys begin with `pay/`, which belongs to this service alone.
//! Invariant: names in keys are percent-encoded, so a slash always separates; everything about one payment or one
//! card stands under one prefix, so that one range read sees it whole at one revision.

use payment_client::Currency;

use crate::domain::{MerchantName, OrderRef, PaymentId, RefundId};
use crate::vault::CardId;

/// A merchant's account and the funding account are spread over so many keys of each kind.
pub(crate) const STRIPES: u8 = 8;

/// So far the clocks of two processes never differ. One may sweep while the other still takes the token.
const CLOCKS_MS_MAX: u64 = 24 * 3_600_000;

pub(crate) const CARDS: &str = "pay/card/";
pub(crate) const DUE: &str = "pay/due/";
pub(crate) const FUNDED: &str = "pay/funded/";
pub(crate) const FUNDING: &str = "pay/funding/";
pub(crate) const MERCHANTS: &str = "pay/merchant/";
pub(crate) const ORDERS: &str = "pay/order/";
pub(crate) const PAYMENTS: &str = "pay/payment/";
/// All that the proof looks at stands from here, in this order: cards, what is due, fundings, merchants, orders, payments.
pub(crate) const PROOF_FROM: &str = CARDS;
/// To here, exclusively: the first key that no longer begins as those of payments do.
pub(crate) const PROOF_TO: &str = "pay/payment0";
/// Says that the cards for trying out were opened once.
pub(crate) const DEMO: &str = "pay/demo";

/// The parts of a card. The counters are cumulative but for `holds`; `available` is the guard that every payment
/// moves by a bounded add, and always credits − debits − holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CardPart {
    Record,
    /// Its currency, as long as it may pay: a blocked card has no such key.
    Accepts,
    Available,
    Credits,
    Debits,
    Holds,
}

impl CardPart {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Accepts => "accepts",
            Self::Available => "available",
            Self::Credits => "credits",
            Self::Debits => "debits",
            Self::Holds => "holds",
        }
    }
}

/// The sides of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Credits,
    Debits,
}

impl Side {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Credits => "credits",
            Self::Debits => "debits",
        }
    }
}

pub(crate) fn card(id: &CardId) -> String {
    format!("{CARDS}{id}/")
}

pub(crate) fn card_part(id: &CardId, part: CardPart) -> String {
    format!("{CARDS}{id}/{}", part.word())
}

/// The name of an account as transfers tell it.
pub(crate) fn card_account(id: &CardId) -> String {
    format!("card:{id}")
}

pub(crate) fn merchant_account(merchant: &MerchantName, payment: &PaymentId) -> String {
    format!("merchant:{}:{}", merchant.segment(), stripe(payment.as_str()))
}

pub(crate) fn funding_account(card: &CardId) -> String {
    format!("funding:{}", stripe(card.as_str()))
}

pub(crate) fn merchant_side(
    currency: Currency,
    merchant: &MerchantName,
    payment: &PaymentId,
    side: Side,
) -> String {
    let (stripe, side) = (stripe(payment.as_str()), side.word());
    format!("{MERCHANTS}{currency}/{}/{stripe}/{side}", merchant.segment())
}

pub(crate) fn funding_side(currency: Currency, card: &CardId, side: Side) -> String {
    format!("{FUNDING}{currency}/{}/{}", stripe(card.as_str()), side.word())
}

pub(crate) fn funded(card: &CardId, number: u64) -> String {
    format!("{FUNDED}{card}/{number:08}")
}

pub(crate) fn payment(id: &PaymentId) -> String {
    format!("{PAYMENTS}{}/", id.segment())
}

pub(crate) fn record(id: &PaymentId) -> String {
    format!("{PAYMENTS}{}/record", id.segment())
}

/// A transfer that a payment has at most once: `hold`, `charge`, `capture` or `release`.
pub(crate) fn transfer(id: &PaymentId, step: &str) -> String {
    format!("{PAYMENTS}{}/{step}", id.segment())
}

pub(crate) fn refund(id: &PaymentId, refund: &RefundId) -> String {
    format!("{PAYMENTS}{}/refund/{}", id.segment(), refund.segment())
}

/// The sum of all refunds, bounded by what was captured.
pub(crate) fn refunded(id: &PaymentId) -> String {
    format!("{PAYMENTS}{}/refunded", id.segment())
}

pub(crate) fn order(merchant: &MerchantName, order_ref: Option<&OrderRef>) -> String {
    let order = order_ref.map(|order| order.segment().to_string());
    format!("{ORDERS}{}/{}/", merchant.segment(), order.unwrap_or_default())
}

pub(crate) fn order_entry(
    merchant: &MerchantName,
    order_ref: Option<&OrderRef>,
    payment: &PaymentId,
) -> String {
    format!("{}{}", order(merchant, order_ref), payment.segment())
}

pub(crate) fn answer(hash: &str) -> String {
    format!("pay/answer/{hash}")
}

/// What runs out, in the order of time.
pub(crate) fn due_hold(at_ms: u64, payment: &PaymentId) -> String {
    format!("{DUE}{at_ms:013}/hold/{}", payment.segment())
}

/// Marks a token as used, for as long as it could be used again by any clock.
pub(crate) fn due_token(expires_ms: u64, nonce: &str) -> String {
    due_token_at_end(expires_ms.saturating_add(CLOCKS_MS_MAX), nonce)
}

/// Where the mark stood before it was kept longer than the token: such marks still count.
pub(crate) fn due_token_at_end(expires_ms: u64, nonce: &str) -> String {
    format!("{DUE}{expires_ms:013}/token/{nonce}")
}

pub(crate) fn due_answer(at_ms: u64, hash: &str) -> String {
    format!("{DUE}{at_ms:013}/answer/{hash}")
}

/// Everything that is due at this time stands before it.
pub(crate) fn due_before(now_ms: u64) -> String {
    format!("{DUE}{:013}/", now_ms.saturating_add(1))
}

/// FNV-1a: any even spread will do, as long as it stays the same for ever.
fn stripe(name: &str) -> u8 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    u8::try_from(hash % u64::from(STRIPES)).expect("there are few stripes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_into_each_other() {
        let payment = PaymentId::parse("a/record").unwrap();
        assert_eq!(record(&payment), "pay/payment/a%2Frecord/record");
        let merchant = MerchantName::parse("m/1").unwrap();
        assert_eq!(
            order_entry(&merchant, None, &payment),
            "pay/order/m%2F1//a%2Frecord"
        );
    }

    #[test]
    fn the_proof_walks_over_all_that_it_needs_payments_last() {
        let walked = [CARDS, DUE, FUNDED, FUNDING, MERCHANTS, ORDERS, PAYMENTS];
        assert!(walked.is_sorted());
        for prefix in walked {
            let last = format!("{prefix}\u{10ffff}");
            assert!(PROOF_FROM <= prefix && *last < *PROOF_TO, "{prefix}");
        }
        assert!(
            *answer("ffff") < *PROOF_FROM,
            "answers are many, and nothing to prove"
        );
    }

    #[test]
    fn the_longest_names_fit_into_a_key() {
        let wide = |count: usize| "ü".repeat(count / 2);
        let merchant = MerchantName::parse(&wide(64)).unwrap();
        let order_ref = OrderRef::parse(&wide(128)).unwrap();
        let payment = PaymentId::parse(&wide(128)).unwrap();
        let refund_id = RefundId::parse(&wide(128)).unwrap();
        assert!(order_entry(&merchant, Some(&order_ref), &payment).len() <= 1024);
        assert!(refund(&payment, &refund_id).len() <= 1024);
    }

    #[test]
    fn time_orders_what_is_due() {
        let payment = PaymentId::parse("p").unwrap();
        assert!(due_hold(999, &payment) < due_before(999));
        assert!(due_hold(1000, &payment) > due_before(999));
        assert!(due_token_at_end(9, "z") < due_answer(10, "a"));
    }

    #[test]
    fn a_mark_outlives_its_token_by_every_clock() {
        let (expires_ms, hour_ms) = (1_800_000, 3_600_000);
        let mark = due_token(expires_ms, "n");
        assert!(mark > due_before(expires_ms));
        assert!(mark > due_before(expires_ms + hour_ms));
        assert!(mark < due_before(expires_ms + 25 * hour_ms));
        assert!(due_token(u64::MAX, "n") > mark);
    }

    #[test]
    fn every_stripe_is_used() {
        let mut seen: Vec<u8> = (0..200).map(|n| stripe(&format!("payment-{n}"))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), usize::from(STRIPES));
    }
}
