//! What stands in a request's query, read strictly.
//! Everything is percent-decoded exactly once. Invariant: a parameter that is given twice, is no UTF-8 or
//! has a broken escape is refused; one that nobody asks for is never looked at.

use std::borrow::Cow;

use axum::http::Uri;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::problem::{self, Problem, Result};

/// All but what means nothing in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Longer than any cursor of the store for a list of ours. It is encoded anew on its way there, and may become three
/// times as long by that: this much the store still reads, so that it can say what is wrong with it.
const CURSOR_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy)]
pub struct Query<'q>(&'q str);

pub fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(problem::MALFORMED_PARAMETER, detail)
}

impl<'q> Query<'q> {
    pub fn of(uri: &'q Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    /// A form, as browsers send it, is written like a query.
    pub fn of_form(body: &'q str) -> Self {
        Self(body)
    }

    fn raw(&self, name: &str) -> Result<Option<&'q str>> {
        let mut found = None;
        for pair in self.0.split('&') {
            let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
            if given == name && found.replace(value).is_some() {
                return Err(malformed(format!("The parameter `{name}` is given twice.")));
            }
        }
        Ok(found)
    }

    pub fn text(&self, name: &str) -> Result<Option<Cow<'q, str>>> {
        match self.raw(name)? {
            None => Ok(None),
            Some(raw) if raw.contains('+') => {
                let spaced = raw.replace('+', " ");
                Ok(Some(Cow::Owned(decode(&spaced, name)?.into_owned())))
            }
            Some(raw) => decode(raw, name).map(Some),
        }
    }

    /// Where a list goes on, in the words of the store.
    pub fn cursor(&self) -> Result<Option<String>> {
        match self.text("cursor")? {
            Some(cursor) if cursor.len() > CURSOR_BYTES_MAX => {
                Err(malformed("The cursor is not one that this service gave out."))
            }
            cursor => Ok(cursor.map(Cow::into_owned)),
        }
    }

    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.raw(name)? {
            Some("1" | "true") => Ok(true),
            None | Some("0" | "false") => Ok(false),
            Some(_) => Err(malformed(format!(
                "The parameter `{name}` is a flag: 1 or true, else 0 or false."
            ))),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.raw(name)?.map(|raw| parse_number(raw, name)).transpose()
    }
}

/// Digits and nothing else; what does not fit 64 bits is no number either.
pub fn parse_number(text: &str, name: &str) -> Result<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| malformed(format!("`{name}` must be a whole number below 2^64.")))
}

/// Text out of a path or a query, with its escapes undone.
pub fn decode<'t>(text: &'t str, name: &str) -> Result<Cow<'t, str>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut escapes = text.split('%').skip(1);
    let sound =
        |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !escapes.all(sound) {
        return Err(malformed(format!(
            "`{name}` has a `%` that is not followed by two hexadecimal digits."
        )));
    }
    let Ok(decoded) = percent_decode_str(text).decode_utf8() else {
        return Err(malformed(format!("`{name}` is not UTF-8.")));
    };
    Ok(decoded)
}

/// What would end a link or a header early, or be no ASCII, cannot stand there raw. Whatever else a caller wrote stays.
const NOT_IN_A_LINK: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// The same query with the cursor of the next page, which names the revision by itself.
pub fn next_page(uri: &Uri, cursor: &str) -> String {
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept: Vec<&str> = pairs
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !name.is_empty() && name != "cursor" && name != "revision"
        })
        .collect();
    let mut place = format!("{}?", utf8_percent_encode(uri.path(), NOT_IN_A_LINK));
    for pair in kept {
        place.extend(utf8_percent_encode(pair, NOT_IN_A_LINK));
        place.push('&');
    }
    format!("{place}cursor={}", utf8_percent_encode(cursor, UNRESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_no_longer_than_the_store_makes_one() {
        let read = |cursor: &str| Query(&format!("limit=2&cursor={cursor}")).cursor();
        assert_eq!(Query("limit=2").cursor().unwrap(), None);
        assert_eq!(read("a%21").unwrap().as_deref(), Some("a!"));
        // It counts as it is read, however it was written.
        for letter in ["!", "%21"] {
            let longest = read(&letter.repeat(CURSOR_BYTES_MAX)).unwrap();
            assert_eq!(longest.unwrap().len(), CURSOR_BYTES_MAX);
            let problem = read(&letter.repeat(CURSOR_BYTES_MAX + 1)).unwrap_err();
            assert_eq!(problem.kind, problem::MALFORMED_PARAMETER);
        }
    }
}
