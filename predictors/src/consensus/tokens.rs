//! Amounts of tokens as people write them: a decimal with at most six places.
//! Invariant: they are read and written digit by digit, and never pass through a float.

use serde_json::value::RawValue;

use crate::stakes::MICRO;

const PLACES: usize = 6;
/// A billion tokens: as a number of micro-tokens it is exact in every client.
pub(crate) const AMOUNT_MICRO_MAX: u64 = 1_000_000_000 * MICRO;

/// Reads a JSON number, such as `1000` or `12.5`.
pub(crate) fn parse(literal: &str) -> Option<u64> {
    let (whole, fraction) = literal.split_once('.').unwrap_or((literal, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > PLACES {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<PLACES$}").parse().ok()?;
    let micro = whole.checked_mul(MICRO)?.checked_add(fraction)?;
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
        for wrong in ["-1", "1e3", "", ".5", "1.", "0.0000001", "1000000000.000001"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for micro in [0, 1, 10, 1_000_000, 1_011_000_000, 12_345_678] {
            assert_eq!(parse(json(micro).get()), Some(micro));
        }
    }
}
