//! Amounts of money: whole minor units inside, decimals on the wire.
//! Invariant: an amount never passes through a float; what has more digits than its currency is refused, not rounded.

use serde_json::value::RawValue;

/// How many digits stand behind the point (ISO 4217).
fn digits(currency: &str) -> usize {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

pub(super) fn money(minor: i64, currency: &str) -> Box<RawValue> {
    let digits = digits(currency);
    let sign = if minor < 0 { "-" } else { "" };
    let size = format!("{:0width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = size.split_at(size.len() - digits);
    let point = if digits > 0 { "." } else { "" };
    RawValue::from_string(format!("{sign}{whole}{point}{fraction}")).expect("a decimal is JSON")
}

/// The minor units of a decimal such as `299.99`, exactly or not at all.
pub(super) fn minor(decimal: &str, currency: &str) -> Option<i64> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = digits(currency).checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(missing)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_a_decimal() {
        let of = |minor, currency| money(minor, currency).get().to_owned();
        assert_eq!(of(29_999, "EUR"), "299.99");
        assert_eq!(of(-5, "EUR"), "-0.05");
        assert_eq!(of(0, "EUR"), "0.00");
        assert_eq!(of(500, "JPY"), "500");
        assert_eq!(of(1005, "KWD"), "1.005");
    }

    #[test]
    fn decimals_are_taken_exactly_or_refused() {
        let taken = [
            ("299.99", "EUR", 29_999),
            ("5", "EUR", 500),
            ("0.1000", "EUR", 10),
            ("300", "JPY", 300),
            ("1.005", "KWD", 1005),
        ];
        for (text, currency, amount) in taken {
            assert_eq!(minor(text, currency), Some(amount), "{text} {currency}");
        }
        for text in [
            "",
            "1.005",
            "-1",
            "1,5",
            ".5",
            "5.",
            "abc",
            "99999999999999999999",
        ] {
            assert_eq!(minor(text, "EUR"), None, "{text}");
        }
    }
}
