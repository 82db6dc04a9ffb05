//! Finds what looks like a card number within a text that is to be stored or logged.
//! Invariant: an id of random hexadecimal digits is never taken for one, whatever digits chance puts into it: digits
//! beside such letters, rows of more digits than a card has, and UUIDs do not count.
//! It must not know what the text is for, nor which brands there are: `is_card` says so of a row of digits.

/// ISO/IEC 7812.
const DIGITS_MIN: usize = 12;
const DIGITS_MAX: usize = 19;
/// What people write between the groups of a number.
const SEPARATORS: [u8; 4] = *b" -._";
/// The places of the hyphens in a UUID.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];
const UUID_BYTES: usize = 36;

/// Whether some groups of digits that stand beside each other, with separators between them, make a card number.
pub fn has_card_number(text: &str, is_card: impl Fn(&str) -> bool) -> bool {
    rows(text.as_bytes())
        .iter()
        .any(|row| makes_card_number(row, &is_card))
}

/// As it is judged where no brand is known: the right length, a first digit that cards have, a right check digit.
pub fn could_be_card(digits: &str) -> bool {
    (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
        && matches!(digits.as_bytes()[0], b'2'..=b'6')
        && has_right_check_digit(digits)
}

/// Luhn.
fn has_right_check_digit(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

fn makes_card_number(row: &[&str], is_card: &impl Fn(&str) -> bool) -> bool {
    (0..row.len()).any(|first| {
        let mut digits = String::new();
        for group in &row[first..] {
            digits.push_str(group);
            if digits.len() > DIGITS_MAX {
                break;
            }
            if digits.len() >= DIGITS_MIN && is_card(&digits) {
                return true;
            }
        }
        false
    })
}

/// The groups of digits that count, in rows of those with nothing but separators between them.
fn rows(text: &[u8]) -> Vec<Vec<&str>> {
    let mut rows = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        let end = group_end(text, at);
        if is_uuid(text, at) {
            rows.push(Vec::new());
            at += UUID_BYTES;
        } else if end > at {
            if is_of_hex(text, at, end) {
                rows.push(Vec::new());
            } else {
                let group = std::str::from_utf8(&text[at..end]).expect("digits are ASCII");
                rows.last_mut().expect("there is always one").push(group);
            }
            at = end;
        } else {
            if !SEPARATORS.contains(&text[at]) {
                rows.push(Vec::new());
            }
            at += 1;
        }
    }
    rows
}

fn group_end(text: &[u8], at: usize) -> usize {
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    at + digits.count()
}

/// Whether the letters directly before or behind the group are all hexadecimal: not so in `card4242…`, where the word
/// before the number is one of a person.
fn is_of_hex(text: &[u8], at: usize, end: usize) -> bool {
    let is_letter = |byte: &&u8| byte.is_ascii_alphabetic();
    let before = text[..at].iter().rev().take_while(is_letter);
    let behind = text[end..].iter().take_while(is_letter);
    let all_hex =
        |letters: Vec<&u8>| !letters.is_empty() && letters.iter().all(|byte| byte.is_ascii_hexdigit());
    all_hex(before.collect()) || all_hex(behind.collect())
}

fn is_uuid(text: &[u8], at: usize) -> bool {
    let is_inside = |place: usize| text.get(place).is_some_and(u8::is_ascii_alphanumeric);
    let Some(bytes) = text.get(at..at + UUID_BYTES) else {
        return false;
    };
    let sound = |(place, byte): (usize, &u8)| {
        if UUID_HYPHENS.contains(&place) {
            *byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    };
    let stands_alone = (at == 0 || !is_inside(at - 1)) && !is_inside(at + UUID_BYTES);
    stands_alone && bytes.iter().enumerate().all(sound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> bool {
        has_card_number(text, could_be_card)
    }

    #[test]
    fn card_numbers_are_found_however_they_are_written() {
        for text in [
            "4242424242424242",
            "4242 4242-4242.4242",
            "4242_4242_4242_4242",
            "4242424242424242-1",
            "1-4242424242424242",
            "order 7, card 4242424242424242",
            "card4242424242424242",
            "visa: 3782 822463 10005 (7)",
            "/v1/payments/x4242424242424242",
            "4242  4242  4242  4242",
            "ü4242424242424242ü",
        ] {
            assert!(found(text), "{text}");
        }
    }

    #[test]
    fn ids_are_no_card_numbers() {
        for text in [
            "",
            "order-7",
            "1764410847123",
            "1764410847123456789",
            "4242424242424241",
            "a4242424242424242",
            "shop-019ab4242424242424242fe0123456789a",
            "42424242424242424242424242424242",
            "42424242-4242-4242-4242-424242424242",
            "4242/4242/4242/4242",
            "4242-4242",
        ] {
            assert!(!found(text), "{text}");
        }
    }

    proptest! {
        /// Chance puts more digits than letters into such ids, so that many have a row as long as a card number.
        #[test]
        fn no_random_id_is_one(id in "[0-9a-f]{32}|[0-9]{32}|[0-9]{16,19}[a-f][0-9]{12,15}|[a-f][0-9]{31}",
            uuid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{8}(-[0-9]{4}){3}-[0-9]{12}",
            before in "(shop|shop1|pay|key|ORD|p)[-_]") {
            for id in [&id, &uuid] {
                let told = format!("{before}{id}");
                prop_assert!(!has_card_number(id, |_| true), "{id}");
                prop_assert!(!found(&told), "{told}");
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,80}") {
            let _found = found(&text);
        }
    }
}
