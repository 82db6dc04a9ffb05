//! `CardNumber`: a number that could be a card's, parsed once.
//! Invariant: 12 to 19 digits, as many as the brand prescribes, and a right check digit (ISO/IEC 7812). It is never
//! shown, has no way into JSON, and its memory is wiped.

use std::fmt;
use std::ops::RangeInclusive;

use zeroize::Zeroize as _;

const DIGITS_MIN: usize = 12;
const DIGITS_MAX: usize = 19;

#[derive(Clone, PartialEq, Eq)]
pub struct CardNumber {
    digits: [u8; DIGITS_MAX],
    length: usize,
    brand: Brand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brand {
    Visa,
    Mastercard,
    Amex,
    Diners,
    Discover,
    Jcb,
    Unionpay,
    Maestro,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardFault {
    #[error("is no valid card number")]
    Invalid,
    #[error("belongs to no brand that is taken here")]
    UnsupportedBrand,
}

/// First digits, brand, lengths. The first range that the digits fall in decides, so the narrow ones come first.
const RANGES: [(u32, RangeInclusive<u32>, Brand, &[usize]); 17] = [
    (4, 6011..=6011, Brand::Discover, &[16, 17, 18, 19]),
    (3, 644..=649, Brand::Discover, &[16, 17, 18, 19]),
    (2, 65..=65, Brand::Discover, &[16, 17, 18, 19]),
    (4, 3528..=3589, Brand::Jcb, &[16, 17, 18, 19]),
    (4, 2221..=2720, Brand::Mastercard, &[16]),
    (2, 51..=55, Brand::Mastercard, &[16]),
    (2, 34..=34, Brand::Amex, &[15]),
    (2, 37..=37, Brand::Amex, &[15]),
    (3, 300..=305, Brand::Diners, &[14, 15, 16, 17, 18, 19]),
    (2, 36..=36, Brand::Diners, &[14, 15, 16, 17, 18, 19]),
    (2, 38..=39, Brand::Diners, &[14, 15, 16, 17, 18, 19]),
    (2, 62..=62, Brand::Unionpay, &[16, 17, 18, 19]),
    (1, 4..=4, Brand::Visa, &[13, 16, 19]),
    (2, 50..=50, Brand::Maestro, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (2, 56..=58, Brand::Maestro, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (2, 59..=61, Brand::Maestro, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (2, 63..=69, Brand::Maestro, &[12, 13, 14, 15, 16, 17, 18, 19]),
];

impl CardNumber {
    /// Digits, with single spaces or hyphens between them if one likes.
    pub fn parse(text: &str) -> Result<Self, CardFault> {
        let mut number = Self {
            digits: [0; DIGITS_MAX],
            length: 0,
            brand: Brand::Visa,
        };
        let mut after_digit = false;
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' if number.length < DIGITS_MAX => {
                    number.digits[number.length] = byte - b'0';
                    number.length += 1;
                    after_digit = true;
                }
                b' ' | b'-' if after_digit => after_digit = false,
                _ => return Err(CardFault::Invalid),
            }
        }
        if !after_digit || number.length < DIGITS_MIN || !has_right_check_digit(number.digits()) {
            return Err(CardFault::Invalid);
        }
        let (brand, lengths) = brand_of(number.digits()).ok_or(CardFault::UnsupportedBrand)?;
        if !lengths.contains(&number.length) {
            return Err(CardFault::Invalid);
        }
        number.brand = brand;
        Ok(number)
    }

    pub fn brand(&self) -> Brand {
        self.brand
    }

    /// All that is ever shown of it.
    pub fn last4(&self) -> String {
        let digits = &self.digits()[self.length - 4..];
        digits.iter().map(|digit| char::from(b'0' + digit)).collect()
    }

    /// The digits as numbers, for hashing alone.
    pub(crate) fn digits(&self) -> &[u8] {
        &self.digits[..self.length]
    }
}

impl Drop for CardNumber {
    fn drop(&mut self) {
        self.digits.zeroize();
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CardNumber({} [redacted])", self.brand.word())
    }
}

/// Luhn: every second digit from the right counts twice, and the sum ends in zero.
fn has_right_check_digit(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit) * if place % 2 == 1 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

fn brand_of(digits: &[u8]) -> Option<(Brand, &'static [usize])> {
    let first = |count: u32| {
        let taken = digits.iter().take(usize::try_from(count).unwrap_or(0));
        taken.fold(0, |number, digit| number * 10 + u32::from(*digit))
    };
    let mut ranges = RANGES.iter();
    let found = ranges.find(|(count, range, _, _)| range.contains(&first(*count)));
    found.map(|(_, _, brand, lengths)| (*brand, *lengths))
}

impl Brand {
    const ALL: [Self; 8] = [
        Self::Visa,
        Self::Mastercard,
        Self::Amex,
        Self::Diners,
        Self::Discover,
        Self::Jcb,
        Self::Unionpay,
        Self::Maestro,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Visa => "visa",
            Self::Mastercard => "mastercard",
            Self::Amex => "amex",
            Self::Diners => "diners",
            Self::Discover => "discover",
            Self::Jcb => "jcb",
            Self::Unionpay => "unionpay",
            Self::Maestro => "maestro",
        }
    }

    pub(crate) fn number(self) -> u8 {
        let place = Self::ALL.iter().position(|brand| *brand == self);
        place
            .and_then(|place| u8::try_from(place).ok())
            .expect("the list has every brand")
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A prefix and a length of each brand, filled up at random and closed with its check digit.
    fn valid() -> impl Strategy<Value = String> {
        let ranges = RANGES
            .iter()
            .flat_map(|(_, range, _, lengths)| lengths.iter().map(move |length| (range.clone(), *length)));
        let ranges: Vec<_> = ranges.collect();
        (prop::sample::select(ranges), any::<u32>(), "[0-9]{19}")
            .prop_map(|((range, length), pick, fill)| {
                let size = range.end() - range.start() + 1;
                let prefix = (range.start() + pick % size).to_string();
                let mut digits: String = prefix.chars().chain(fill.chars()).take(length - 1).collect();
                digits.push(check_digit(&digits));
                digits
            })
            // The fill may have made it one of a narrower range with other lengths.
            .prop_filter("of another brand", |digits| {
                let numbers: Vec<u8> = digits.bytes().map(|byte| byte - b'0').collect();
                brand_of(&numbers).is_some_and(|(_, lengths)| lengths.contains(&digits.len()))
            })
    }

    fn check_digit(digits: &str) -> char {
        let mut ends = '0'..='9';
        let right = ends.find(|end| {
            let whole: Vec<u8> = digits
                .bytes()
                .chain([*end as u8])
                .map(|byte| byte - b'0')
                .collect();
            has_right_check_digit(&whole)
        });
        right.unwrap()
    }

    #[test]
    fn known_numbers_have_their_brands() {
        let known = [
            ("4242 4242 4242 4242", Brand::Visa),
            ("4222222222222", Brand::Visa),
            ("5555-5555-5555-4444", Brand::Mastercard),
            ("2223003122003222", Brand::Mastercard),
            ("3782 822463 10005", Brand::Amex),
            ("30569309025904", Brand::Diners),
            ("6011111111111117", Brand::Discover),
            ("3530111333300000", Brand::Jcb),
            ("6200000000000005", Brand::Unionpay),
            ("6759649826438453", Brand::Maestro),
            ("4000 0000 0000 0002", Brand::Visa),
        ];
        for (text, brand) in known {
            let number = CardNumber::parse(text).unwrap();
            assert_eq!(number.brand(), brand, "{text}");
            assert!(text.ends_with(&number.last4()) || text.contains(' '));
            assert_eq!(Brand::of_number(brand.number()), Some(brand));
        }
    }

    #[test]
    fn what_is_no_card_number_is_refused() {
        for text in [
            "",
            "4",
            "4242424242424241",
            "4242  424242424242",
            " 4242424242424242",
            "4242424242424242 ",
            "4242-424242424242-",
            "42424242424242420000",
            "424242424242x4242",
            "４２４２４２４２４２４２４２４２",
            "42424242424242424242424242424242",
            "378282246310",
        ] {
            assert_eq!(CardNumber::parse(text), Err(CardFault::Invalid), "{text}");
        }
        for text in ["1000000000000008", "9999999999999995", "0000000000000000"] {
            assert_eq!(
                CardNumber::parse(text),
                Err(CardFault::UnsupportedBrand),
                "{text}"
            );
        }
    }

    #[test]
    fn no_format_shows_it() {
        let number = CardNumber::parse("4242424242424242").unwrap();
        assert_eq!(format!("{number:?}"), "CardNumber(visa [redacted])");
    }

    proptest! {
        #[test]
        fn every_number_with_prefix_length_and_check_digit_is_taken(digits in valid()) {
            let number = CardNumber::parse(&digits);
            prop_assert!(number.is_ok(), "{digits}: {number:?}");
            prop_assert!(digits.ends_with(&number.unwrap().last4()));
        }

        #[test]
        fn every_single_digit_typo_is_refused(digits in valid()) {
            prop_assert!(CardNumber::parse(&digits).is_ok(), "{digits}");
            for place in 0..digits.len() {
                for other in b'0'..=b'9' {
                    let mut typed = digits.clone().into_bytes();
                    if typed[place] == other {
                        continue;
                    }
                    typed[place] = other;
                    let typed = String::from_utf8(typed).unwrap();
                    prop_assert!(CardNumber::parse(&typed).is_err(), "{digits} as {typed}");
                }
            }
        }

        #[test]
        fn every_swap_of_neighbours_but_zero_and_nine_is_refused(digits in valid(), place in any::<prop::sample::Index>()) {
            let mut typed = digits.clone().into_bytes();
            let place = place.index(typed.len() - 1);
            let (left, right) = (typed[place], typed[place + 1]);
            prop_assume!(left != right && left.abs_diff(right) != 9);
            typed.swap(place, place + 1);
            let typed = String::from_utf8(typed).unwrap();
            prop_assert!(CardNumber::parse(&typed).is_err(), "{digits} as {typed}");
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,40}") {
            let _parsed = CardNumber::parse(&text);
        }
    }
}
