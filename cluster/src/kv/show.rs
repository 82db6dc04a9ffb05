//! How keys, values, sizes and times are written for people, and durations read from them.
//! Invariant: text for a terminal holds no control characters of a stranger's value.

use std::fmt::Write as _;
use std::time::Duration;

use crate::output::stdout_is_terminal;

/// In tables on a terminal, longer values are cut.
const SHOWN_CHARS_MAX: usize = 120;

/// A value as one line of text.
pub(super) fn value(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, letter) in String::from_utf8_lossy(bytes).chars().enumerate() {
        if n == SHOWN_CHARS_MAX && stdout_is_terminal() {
            let _ = write!(text, "… ({} bytes)", bytes.len());
            break;
        }
        if letter.is_control() {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text
}

/// A key as one line of text, never cut.
pub(super) fn key(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for letter in key.chars() {
        if letter.is_control() {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text
}

pub(super) fn lease(id: u64) -> String {
    if id == 0 { "-".to_owned() } else { id.to_string() }
}

pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut whole = count;
    let mut rest = 0;
    let mut unit = 0;
    for next in 0..UNITS.len() {
        unit = next;
        rest = whole % 1024;
        whole /= 1024;
        if whole < 1024 {
            break;
        }
    }
    format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit])
}

pub(super) fn duration(duration_ms: u64) -> String {
    let seconds = duration_ms / 1000;
    match seconds {
        0 => format!("{duration_ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Reads `500ms`, `5s`, `2m`, `1h`. A number alone is refused: nobody could tell its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write for example 500ms, 5s, 2m or 1h");
    let digits_end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_too_large| wrong())?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(ms_per_unit)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        for wrong in [
            "5",
            "",
            "s",
            "-1s",
            "1.5s",
            "5 s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_short() {
        let sizes: Vec<String> = [0, 1023, 1024, 1536, 5 << 20, u64::MAX]
            .into_iter()
            .map(bytes)
            .collect();
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "16777215.9 TiB"]
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(value(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(key("tab\there"), "tab\\there");
    }
}
