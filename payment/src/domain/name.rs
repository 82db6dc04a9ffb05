//! Names that callers choose: of payments, refunds, merchants and orders.
//! Invariant of all that are parsed: not empty, bounded in bytes, no control characters, fit for one segment of a path
//! or a key, and no card number by mistake, since names are stored and logged.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use service::card_like::has_card_number;

use super::CardNumber;

/// Everything but the characters that RFC 3986 calls unreserved: so a name in a key has no slash.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameFault {
    #[error("must be 1 to {bytes_max} bytes long")]
    Length { bytes_max: usize },
    #[error("must have no control characters")]
    Control,
    #[error("must not be `.` or `..`, which have a meaning of their own in paths")]
    Dots,
    #[error("has a card number in it, which must not stand in a name")]
    CardNumber,
}

macro_rules! names {
    ($($(#[$what:meta])* $name:ident $bytes_max:literal)*) => {$(
        $(#[$what])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(String);

        impl $name {
            pub(crate) fn parse(text: &str) -> Result<Self, NameFault> {
                check(text, $bytes_max)?;
                Ok(Self(text.to_owned()))
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }

            /// As a segment of a key or a path.
            pub(crate) fn segment(&self) -> impl fmt::Display + '_ {
                segment(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The caller's name for one payment.
    PaymentId 128
    /// The caller's name for one refund of a payment.
    RefundId 128
    /// Who is paid.
    MerchantName 64
    /// What is paid for, in the merchant's words.
    OrderRef 128
}

/// Names that the ledger wrote are read again as they are, also when they could not be given any longer.
macro_rules! stored_names {
    ($($name:ident)*) => {$(
        impl $name {
            pub(crate) fn stored(text: impl Into<String>) -> Self {
                Self(text.into())
            }
        }
    )*};
}

stored_names! { PaymentId MerchantName OrderRef }

pub(crate) fn segment(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

fn check(text: &str, bytes_max: usize) -> Result<(), NameFault> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(NameFault::Length { bytes_max });
    }
    if text.chars().any(char::is_control) {
        return Err(NameFault::Control);
    }
    if text == "." || text == ".." {
        return Err(NameFault::Dots);
    }
    if has_card_number(text, |digits| CardNumber::parse(digits).is_ok()) {
        return Err(NameFault::CardNumber);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_checked() {
        for good in [
            "1",
            "pi_019_1",
            "order 7/Ω",
            "...",
            "1700000000000",
            "4242424242424241",
            "shop-a4242424242424242000000000000000",
        ] {
            assert_eq!(PaymentId::parse(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(129);
        let faults = [
            ("", NameFault::Length { bytes_max: 128 }),
            (long.as_str(), NameFault::Length { bytes_max: 128 }),
            ("a\nb", NameFault::Control),
            ("a\u{0}", NameFault::Control),
            ("..", NameFault::Dots),
            ("4242424242424242", NameFault::CardNumber),
            ("4242 4242-42424242", NameFault::CardNumber),
            ("4242424242424242-1", NameFault::CardNumber),
            ("card 4242424242424242", NameFault::CardNumber),
            ("4242.4242.4242.4242", NameFault::CardNumber),
            ("visa_3782_822463_10005", NameFault::CardNumber),
        ];
        for (text, fault) in faults {
            assert_eq!(PaymentId::parse(text), Err(fault), "{text}");
        }
        assert!(MerchantName::parse(&"x".repeat(65)).is_err());
    }

    #[test]
    fn a_segment_has_no_slash() {
        let name = OrderRef::parse("a/b %ü").unwrap();
        assert_eq!(name.segment().to_string(), "a%2Fb%20%25%C3%BC");
    }

    proptest! {
        /// Those of the shop, of keys and of charges without one, and what others make by chance.
        #[test]
        fn no_random_id_is_refused(hex in "[0-9a-f]{32}|[0-9]{16,19}[a-f][0-9]{12,15}|[0-9]{32}",
            before in "(pay|key)_|(petstore|shop1|ORD)-") {
            let id = format!("{before}{hex}");
            prop_assert!(PaymentId::parse(&id).is_ok(), "{id}");
            prop_assert!(OrderRef::parse(&hex).is_ok(), "{hex}");
        }
    }
}
