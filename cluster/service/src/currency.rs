//! Currencies of ISO 4217 and how many digits their minor unit has.
//! Invariant: a `Currency` is one of the table, so its digits are known.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A currency that is in use, by its three letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    digits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a currency of ISO 4217 in capitals, such as \"EUR\"")]
pub struct UnknownCurrency;

/// By the number of digits behind the point.
const TABLE: [(u8, &str); 4] = [
    (
        0,
        "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    ),
    (
        2,
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF \
         CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF \
         IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR \
         MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD \
         SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD YER \
         ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

impl Currency {
    pub const EUR: Self = Self {
        code: "EUR",
        digits: 2,
    };

    /// The three letters.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// How many digits stand behind the point.
    pub fn digits(self) -> u8 {
        self.digits
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, UnknownCurrency> {
        for (digits, codes) in TABLE {
            if let Some(code) = codes.split_ascii_whitespace().find(|code| *code == text) {
                return Ok(Self { code, digits });
            }
        }
        Err(UnknownCurrency)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_standard() {
        let told = [
            ("EUR", 2),
            ("JPY", 0),
            ("KWD", 3),
            ("CLF", 4),
            ("USD", 2),
            ("ISK", 0),
        ];
        for (code, digits) in told {
            assert_eq!(code.parse::<Currency>().unwrap().digits(), digits, "{code}");
        }
        for wrong in ["", "eur", "EURO", "EU", "XXA", "DEM", "EUR "] {
            assert_eq!(wrong.parse::<Currency>(), Err(UnknownCurrency), "{wrong}");
        }
        assert_eq!("EUR".parse(), Ok(Currency::EUR));
    }

    #[test]
    fn each_code_stands_once_and_has_three_capitals() {
        let mut codes: Vec<&str> = TABLE
            .iter()
            .flat_map(|(_, codes)| codes.split_ascii_whitespace())
            .collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert!(
            codes
                .iter()
                .all(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()))
        );
    }
}
