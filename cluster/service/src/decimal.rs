//! Decimal numbers as they stand in JSON, read as whole numbers of a small unit such as a cent.
//! Invariant: a number never passes through a float. It is read from the digits that were sent, exactly or not at all,
//! however it was written. It must not know what is counted.

/// Longer literals are no amounts of anything, however many zeros they have.
const LITERAL_BYTES_MAX: usize = 64;

/// Why a text is no number of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoNumber,
    /// It has more digits behind the point than the unit.
    TooFine,
    Negative,
    TooMuch,
}

/// How many units a number is, where each is ten to the power of minus `places`: with two places `1.5` and `15e-1` are
/// 150, and `1.005` is refused.
pub fn units(text: &str, places: u8) -> Result<i64, Fault> {
    let decimal = Decimal::read(text)?;
    let units = decimal.scaled(places)?;
    if decimal.negative && units != 0 {
        return Err(Fault::Negative);
    }
    Ok(units)
}

/// The digits of `whole` and of `fraction`, which stand around the point, times ten to the power of `exponent`.
struct Decimal<'text> {
    negative: bool,
    whole: &'text str,
    fraction: &'text str,
    exponent: i64,
}

impl<'text> Decimal<'text> {
    /// The grammar of JSON numbers (RFC 8259).
    fn read(text: &'text str) -> Result<Self, Fault> {
        if text.len() > LITERAL_BYTES_MAX {
            return Err(Fault::TooMuch);
        }
        let unsigned = text.strip_prefix('-');
        let (mantissa, exponent) = match unsigned.unwrap_or(text).split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (unsigned.unwrap_or(text), 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(Fault::NoNumber),
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let leads_with_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || leads_with_zero || !digits_only(whole) || !digits_only(fraction) {
            return Err(Fault::NoNumber);
        }
        Ok(Self {
            negative: unsigned.is_some(),
            whole,
            fraction,
            exponent,
        })
    }

    /// The number in units, if it is a whole number of them.
    fn scaled(&self, places: u8) -> Result<i64, Fault> {
        let digits = [self.whole, self.fraction].concat();
        let trimmed = digits.trim_end_matches('0');
        let count = |size: usize| i64::try_from(size).expect("a literal is short");
        let zeros = count(digits.len() - trimmed.len());
        let significant = trimmed.trim_start_matches('0');
        if significant.is_empty() {
            return Ok(0);
        }
        let shift = i64::from(places) + self.exponent - count(self.fraction.len()) + zeros;
        let Ok(shift) = u32::try_from(shift) else {
            return Err(Fault::TooFine);
        };
        let units = significant.parse::<i64>().ok();
        let units = units.and_then(|units| units.checked_mul(10_i64.checked_pow(shift)?));
        units.ok_or(Fault::TooMuch)
    }
}

fn read_exponent(text: &str) -> Result<i64, Fault> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::NoNumber);
    }
    // What does not fit is far outside of all amounts anyway, on the side that the sign says.
    let size = digits.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000);
    Ok(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        for text in ["0.00001", "1e-05", "1E-5", "0.1e-4", "100e-7", "0.0000100"] {
            assert_eq!(units(text, 6), Ok(10), "{text}");
        }
        for (text, fault) in [
            ("1e-07", Fault::TooFine),
            ("-1e-05", Fault::Negative),
            ("1e14", Fault::TooMuch),
            ("1e", Fault::NoNumber),
            ("1e5.0", Fault::NoNumber),
            ("", Fault::NoNumber),
        ] {
            assert_eq!(units(text, 6), Err(fault), "{text}");
        }
    }
}
