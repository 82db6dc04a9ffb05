//! Names of products, users and orders.
//! Invariant: bounded, without control characters, and fit for one segment of a path; in a key they are
//! percent-encoded, so that none reaches into another's keys. A name that is taken anew is no card number by mistake,
//! since names are stored.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use service::card_like::{could_be_card, has_card_number};

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 2..=64;
const USER_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameFault {
    #[error("must be 2 to 64 characters long")]
    UsernameLength,
    #[error("must be 1 to 256 bytes long")]
    UserLength,
    #[error("must have no control characters, and no spaces at its ends")]
    Control,
    #[error("must not be `.` or `..`, which have a meaning of their own in paths")]
    Dots,
    #[error("has digits in it that make a card number, which is kept nowhere here; choose another one")]
    CardNumber,
}

pub(crate) fn segment(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.map(|digit| char::from_digit(u32::from(digit), 16));
    digits
        .map(|digit| digit.expect("four bits are a hex digit"))
        .collect()
}

macro_rules! texts {
    ($($(#[$what:meta])* $name:ident)*) => {$(
        $(#[$what])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(String);

        impl $name {
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

texts! {
    /// Of letters, digits, hyphens and underscores: nothing else was ever given out.
    ProductId
    /// Whose cart or orders are meant; with accounts, one that the shop made.
    UserId
    /// 32 hex digits, the newest last.
    OrderId
    /// As it is compared: upper and lower case make no difference.
    Username
}

impl ProductId {
    /// `None` for what no product can be called.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        ((1..=64).contains(&text.len()) && text.bytes().all(sound)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn numbered(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl UserId {
    /// One that a caller names.
    pub(crate) fn parse(text: &str) -> Result<Self, NameFault> {
        let user = Self::stored(text)?;
        refuse_card_number(text)?;
        Ok(user)
    }

    /// One that the shop has written down, maybe before such a name was refused.
    pub(crate) fn stored(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() || text.len() > USER_BYTES_MAX {
            return Err(NameFault::UserLength);
        }
        check(text)?;
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn random() -> Self {
        loop {
            if let Some(user) = Self::of_bits(random() >> 64) {
                return user;
            }
        }
    }

    /// `None` where chance has put the digits of a card together: nobody could name it again.
    fn of_bits(bits: u128) -> Option<Self> {
        Self::parse(&format!("u{bits:016x}")).ok()
    }
}

impl OrderId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let sound = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(sound)).then(|| Self(text.to_owned()))
    }

    /// Twelve digits of time and twenty of chance.
    pub(crate) fn new(now_ms: u64) -> Self {
        let time = now_ms & 0xffff_ffff_ffff;
        Self(format!("{time:012x}{:020x}", random() >> 48))
    }
}

impl Username {
    /// Of an account that is to be made.
    pub(crate) fn parse(text: &str) -> Result<Self, NameFault> {
        let name = Self::typed(text)?;
        refuse_card_number(text)?;
        Ok(name)
    }

    /// As somebody types it who signs in: the account may be older than what is refused since.
    pub(crate) fn typed(text: &str) -> Result<Self, NameFault> {
        if !USERNAME_CHARS.contains(&text.chars().count()) {
            return Err(NameFault::UsernameLength);
        }
        check(text)?;
        Ok(Self(text.to_lowercase()))
    }

    pub(crate) fn admin() -> Self {
        Self("admin".to_owned())
    }
}

fn check(text: &str) -> Result<(), NameFault> {
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err(NameFault::Control);
    }
    if text == "." || text == ".." {
        return Err(NameFault::Dots);
    }
    Ok(())
}

fn refuse_card_number(text: &str) -> Result<(), NameFault> {
    if has_card_number(text, could_be_card) {
        return Err(NameFault::CardNumber);
    }
    Ok(())
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes to give");
    u128::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["1", "a-b_9"] {
            assert!(ProductId::parse(good).is_some(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "a/b", "..", "a b", "ü", &long] {
            assert_eq!(ProductId::parse(bad), None, "{bad}");
        }
        assert_eq!(Username::parse("Ada Lovelace").unwrap().as_str(), "ada lovelace");
        for (bad, fault) in [
            ("x", NameFault::UsernameLength),
            (&long, NameFault::UsernameLength),
            ("a\nb", NameFault::Control),
            (" ab", NameFault::Control),
            ("..", NameFault::Dots),
        ] {
            assert_eq!(Username::parse(bad), Err(fault), "{bad}");
        }
        assert_eq!(segment("a/b ü").to_string(), "a%2Fb%20%C3%BC");
    }

    #[test]
    fn a_card_number_is_no_new_name() {
        for text in [
            "4242424242424242",
            "4242 4242-4242.4242",
            "card 3782 822463 10005",
            "u4242424242424242",
        ] {
            assert_eq!(UserId::parse(text), Err(NameFault::CardNumber), "{text}");
            assert_eq!(Username::parse(text), Err(NameFault::CardNumber), "{text}");
            // What stands in the store from before is still read, and still signs in.
            assert_eq!(UserId::stored(text).unwrap().as_str(), text);
            assert_eq!(Username::typed(text).unwrap().as_str(), text);
        }
        for text in ["7", "1764410847123", "4242424242424241", "ada"] {
            assert_eq!(UserId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_the_shop_calls_somebody_can_be_named_again() {
        assert_eq!(UserId::of_bits(0x4242_4242_4242_4242), None);
        assert_eq!(
            UserId::of_bits(0x4242_4242_4242_4241).unwrap().as_str(),
            "u4242424242424241"
        );
        assert!(UserId::parse(UserId::random().as_str()).is_ok());
    }

    #[test]
    fn later_orders_come_later() {
        let (one, two) = (OrderId::new(1), OrderId::new(2));
        assert!(one < two && OrderId::new(u64::MAX) > two);
        assert_eq!(OrderId::parse(one.as_str()), Some(one));
        assert_eq!(OrderId::parse("XYZ"), None);
    }
}
