//! Amounts of money: a whole number of minor units and a currency.
//! Invariant: an amount never passes through a float. It is read from the digits that were sent, exactly or
//! not at all, and written from integers; arithmetic is checked.

use std::fmt;

use serde_json::value::RawValue;

use crate::currency::Currency;
use crate::decimal::{self, Fault};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("must be a number, such as 299.99")]
    NoNumber,
    #[error("has more than {digits} digits behind the point, which {currency} does not have")]
    TooFine { currency: Currency, digits: u8 },
    #[error("must not be negative")]
    Negative,
    #[error("is more than can be handled")]
    TooMuch,
}

impl Money {
    /// A million millions of minor units: the most that a single amount may be.
    pub const MINOR_MAX: i64 = 1_000_000_000_000;

    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Reads a JSON number as it was sent: `299.99` is 29999 cents, `1.005` is refused, `1e2` is 100.
    pub fn of_literal(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let digits = currency.digits();
        let minor = decimal::units(text, digits).map_err(|fault| match fault {
            Fault::NoNumber => MoneyError::NoNumber,
            Fault::TooFine => MoneyError::TooFine { currency, digits },
            Fault::Negative => MoneyError::Negative,
            Fault::TooMuch => MoneyError::TooMuch,
        })?;
        Ok(Self { minor, currency })
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_add(other.minor)?;
        (self.currency == other.currency).then_some(Self { minor, ..self })
    }

    pub fn checked_sub(self, other: Self) -> Option<Self> {
        let minor = self.minor.checked_sub(other.minor)?;
        (self.currency == other.currency).then_some(Self { minor, ..self })
    }

    /// The amount as a JSON number with all its digits.
    pub fn to_json(self) -> Box<RawValue> {
        RawValue::from_string(self.to_string()).expect("digits and a point are a JSON number")
    }
}

/// The amount alone, such as `299.99`; the currency is told beside it.
impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.currency.digits());
        let unit = 10_u64.pow(u32::from(self.currency.digits()));
        let (size, sign) = (self.minor.unsigned_abs(), if self.minor < 0 { "-" } else { "" });
        write!(formatter, "{sign}{}", size / unit)?;
        if digits > 0 {
            write!(formatter, ".{:0digits$}", size % unit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn euro(text: &str) -> Result<i64, MoneyError> {
        Money::of_literal(text, Currency::EUR).map(|money| money.minor)
    }

    #[test]
    fn literals_are_taken_exactly_or_refused() {
        let taken = [
            ("299.99", 29_999),
            ("0.1", 10),
            ("0.30", 30),
            ("0.300000", 30),
            ("1", 100),
            ("100.0", 10_000),
            ("1e2", 10_000),
            ("1.5E+1", 1500),
            ("29999e-2", 29_999),
            ("0", 0),
            ("-0", 0),
            ("0e999999999999999999999", 0),
            ("4503599627370497.5", 450_359_962_737_049_750),
            ("92233720368547758.07", i64::MAX),
        ];
        for (text, minor) in taken {
            assert_eq!(euro(text), Ok(minor), "{text}");
        }
        let fine = MoneyError::TooFine {
            currency: Currency::EUR,
            digits: 2,
        };
        let refused = [
            ("1.005", fine),
            ("0.001", fine),
            ("1e-3", fine),
            ("1e-99999999999999999999", fine),
            ("-1", MoneyError::Negative),
            ("92233720368547758.08", MoneyError::TooMuch),
            ("1e400", MoneyError::TooMuch),
            ("", MoneyError::NoNumber),
            ("1.", MoneyError::NoNumber),
            (".5", MoneyError::NoNumber),
            ("01", MoneyError::NoNumber),
            ("+1", MoneyError::NoNumber),
            ("1,5", MoneyError::NoNumber),
            ("\"1\"", MoneyError::NoNumber),
            ("NaN", MoneyError::NoNumber),
            ("1e", MoneyError::NoNumber),
            ("true", MoneyError::NoNumber),
        ];
        for (text, error) in refused {
            assert_eq!(euro(text), Err(error), "{text}");
        }
    }

    #[test]
    fn digits_follow_the_currency() {
        let yen: Currency = "JPY".parse().unwrap();
        let dinar: Currency = "KWD".parse().unwrap();
        assert_eq!(Money::of_literal("1.005", dinar).unwrap().minor, 1005);
        assert_eq!(Money::new(1005, dinar).to_string(), "1.005");
        assert_eq!(Money::of_literal("300", yen).unwrap().to_string(), "300");
        assert!(Money::of_literal("300.5", yen).is_err());
        assert_eq!(Money::new(-5, Currency::EUR).to_string(), "-0.05");
        assert_eq!(Money::new(5, yen).checked_add(Money::new(5, dinar)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(minor in 0..i64::MAX, code in prop::sample::select(vec!["EUR", "JPY", "KWD", "CLF"])) {
            let money = Money::new(minor, code.parse().unwrap());
            prop_assert_eq!(Money::of_literal(money.to_json().get(), money.currency), Ok(money));
        }

        #[test]
        fn nothing_makes_it_panic(text in "-?[0-9]{0,30}(\\.[0-9]{0,30})?([eE][+-]?[0-9]{0,25})?") {
            if let Ok(minor) = euro(&text) {
                prop_assert!(minor >= 0);
            }
        }
    }
}
