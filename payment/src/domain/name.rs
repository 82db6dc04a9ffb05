//! Names that callers choose: of payments, refunds, merchants and orders.
//! Invariant of all that are parsed: not empty, bounded in bytes, no control characters, fit for one segment of a path or a key, and no
//! card number by mistake, since names are stored and logged.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

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
    #[error("is a card number, which must not stand in a name")]
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

stored_names! { PaymentId MerchantName }

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
    if CardNumber::parse(text.trim()).is_ok() {
        return Err(NameFault::CardNumber);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["1", "pi_019_1", "order 7/Ω", "...", "1700000000000"] {
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
}
