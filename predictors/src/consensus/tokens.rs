//! Amounts of tokens as people write them: a decimal with at most six places.
//! Invariant: they are read and written digit by digit, and never pass through a float.

use serde_json::value::RawValue;
use service::decimal;

use crate::stakes::MICRO;

const PLACES: u8 = 6;
/// A billion tokens: as a number of micro-tokens it is exact in every client.
pub(crate) const AMOUNT_MICRO_MAX: u64 = 1_000_000_000 * MICRO;

/// Reads a JSON number, such as `1000`, `12.5` or `1e-05`, as some programs write small ones.
pub(crate) fn parse(literal: &str) -> Option<u64> {
    let micro = u64::try_from(decimal::units(literal, PLACES).ok()?).ok()?;
    (micro <= AMOUNT_MICRO_MAX).then_some(micro)
}

/// As a JSON number, without needless zeros.
pub(crate) fn json(micro: u64) -> Box<RawValue> {
    let (whole, fraction) = (micro / MICRO, micro % MICRO);
    let text = if fraction == 0 {
        whole.to_string()
    } else {
        let text = format!("{whole}.{fraction:06}");
        text.trim_end_matches('0').to_owned()
    };
    RawValue::from_string(text).expect("digits and a point are a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits() {
        assert_eq!(parse("1000"), Some(1_000_000_000));
        assert_eq!(parse("0.000001"), Some(1));
        assert_eq!(parse("12.5"), Some(12_500_000));
        for (text, micro) in [("1e-05", 10), ("1e3", 1_000_000_000), ("1.25E+1", 12_500_000)] {
            assert_eq!(parse(text), Some(micro), "{text}");
        }
        assert_eq!(parse("1e9"), Some(AMOUNT_MICRO_MAX));
        for wrong in [
            "-1",
            "",
            ".5",
            "1.",
            "1e",
            "0.0000001",
            "1e-07",
            "1.5e-06",
            "1000000000.000001",
            "1e10",
            "1e400",
            "\"1\"",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for micro in [0, 1, 10, 1_000_000, 1_011_000_000, 12_345_678] {
            assert_eq!(parse(json(micro).get()), Some(micro));
        }
    }
}
