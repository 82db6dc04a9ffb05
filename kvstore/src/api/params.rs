//! What stands in a request's path and query, read strictly.
//!
//! Everything is percent-decoded exactly once. Invariant: a parameter that is given twice, is no UTF-8 or
//! has a broken escape is refused; one that nobody asks for is never looked at.

use std::borrow::Cow;
use std::ops::Deref;

use axum::http::Uri;
use bytes::Bytes;
use kvstore_client::wire::level::Consistency;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use service::problem::{self, Problem, Result};
use service::query::{Query, decode};

pub(super) use service::query::{malformed, parse_number};

const KEY_PATH: &str = "/v1/kv/";

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A query, and what only the store's routes find in one.
pub(super) struct Params<'q>(Query<'q>);

impl<'q> Params<'q> {
    pub(super) fn of(uri: &'q Uri) -> Self {
        Self(Query::of(uri))
    }

    pub(super) fn level(&self) -> Result<Consistency> {
        let Some(text) = self.text("consistency")? else {
            return Ok(Consistency::default());
        };
        let level = text.parse::<Consistency>();
        level.map_err(|error| malformed(format!("The parameter `consistency`: {error}.")))
    }

    /// The revision that a read asks for; `None` is the present.
    pub(super) fn revision(&self) -> Result<Option<u64>> {
        self.number("revision")
    }
}

impl<'q> Deref for Params<'q> {
    type Target = Query<'q>;

    fn deref(&self) -> &Query<'q> {
        &self.0
    }
}

/// The key in `/v1/kv/{key}`, taken from the raw path, so that slashes mean themselves wherever they stand.
pub(super) fn key(uri: &Uri, bytes_max: usize) -> Result<Bytes> {
    let raw = uri
        .path()
        .strip_prefix(KEY_PATH)
        .expect("the router sends only such paths here");
    let key = decode(raw, "key")?;
    check_key(&key, bytes_max)?;
    Ok(match key {
        Cow::Borrowed(key) => Bytes::copy_from_slice(key.as_bytes()),
        Cow::Owned(key) => Bytes::from(key),
    })
}

pub(super) fn check_key(key: &str, bytes_max: usize) -> Result<()> {
    if (1..=bytes_max).contains(&key.len()) {
        return Ok(());
    }
    let detail = format!(
        "A key is 1 to {bytes_max} bytes of UTF-8; this one has {}.",
        key.len()
    );
    Err(Problem::new(problem::INVALID_KEY, detail))
}

/// A prefix, or an end of a range: it may be empty, but nothing longer than a key makes sense.
pub(super) fn check_bound(bound: &str, bytes_max: usize) -> Result<()> {
    if bound.len() <= bytes_max {
        return Ok(());
    }
    let detail = format!(
        "No key begins like this: keys have at most {bytes_max} bytes, this has {}.",
        bound.len()
    );
    Err(Problem::new(problem::INVALID_KEY, detail))
}

/// The folders of a key that is to be found by its path: who follows a link would leave out `.` and `..`.
pub(super) fn check_location(prefix: &str) -> Result<()> {
    let folders = prefix.rsplit_once('/').map_or("", |(folders, _)| folders);
    if !folders.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(());
    }
    let detail = "The path to this key would have a segment `.` or `..`, which URL libraries take out; use POST /v1/txn.";
    Err(Problem::new(problem::INVALID_KEY, detail))
}

/// One segment of the path behind `before`, decoded.
pub(super) fn segment<'u>(uri: &'u Uri, before: &str, name: &str) -> Result<Cow<'u, str>> {
    let rest = uri
        .path()
        .strip_prefix(before)
        .expect("the router sends only such paths here");
    decode(rest.split('/').next().unwrap_or_default(), name)
}

pub(super) fn encode(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

/// Where the key is found: its slashes stay slashes.
pub(super) fn key_path(key: &str) -> String {
    let segments: Vec<String> = key
        .split('/')
        .map(|segment| encode(segment).to_string())
        .collect();
    format!("{KEY_PATH}{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_in(path: &str) -> std::result::Result<String, &'static str> {
        let uri: Uri = format!("/v1/kv/{path}").parse().unwrap();
        let key = key(&uri, 8).map_err(|problem| problem.kind.code)?;
        Ok(String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn keys_are_decoded_exactly_once() {
        let cases = [
            ("a", "a"),
            ("a/b", "a/b"),
            ("a%2Fb", "a/b"),
            ("/a", "/a"),
            ("%2F%2F", "//"),
            ("a//b", "a//b"),
            ("a/", "a/"),
            ("%00", "\0"),
            ("%252e", "%2e"),
            ("%2e%2e", ".."),
            ("a+b", "a+b"),
            ("%C3%A9", "é"),
            ("a%3Fb", "a?b"),
        ];
        for (path, key) in cases {
            assert_eq!(key_in(path).as_deref(), Ok(key), "{path}");
        }
        for (path, code) in [
            ("", "invalid-key"),
            ("123456789", "invalid-key"),
            ("%ff", "malformed-parameter"),
            ("%f", "malformed-parameter"),
            ("%zz", "malformed-parameter"),
            ("a%", "malformed-parameter"),
            ("%+1", "malformed-parameter"),
            ("%é1", "malformed-parameter"),
        ] {
            assert_eq!(key_in(path), Err(code), "{path}");
        }
    }

    #[test]
    fn the_path_of_a_key_leads_back_to_it() {
        for key in ["a", "a/b", "/a//b/", "é ?#%+&", "\0"] {
            assert_eq!(
                key_in(key_path(key).strip_prefix(KEY_PATH).unwrap()).as_deref(),
                Ok(key)
            );
        }
    }

    #[test]
    fn a_made_key_is_found_by_its_path() {
        for fine in ["", "p/", "..", ".", "a/..", "...", "a/b./.c/"] {
            assert!(check_location(fine).is_ok(), "{fine}");
        }
        for lost in ["../", "./", "a/../b", "a/./", "/../"] {
            assert!(check_location(lost).is_err(), "{lost}");
        }
    }

    #[test]
    fn queries_are_read_strictly() {
        let uri: Uri = "/v1/kv?prefix=a+b%2B&limit=12&twice=1&twice=2&flag=true&off=0&bad=yes&huge=18446744073709551616&neg=-1&plus=%2B1"
            .parse()
            .unwrap();
        let params = Params::of(&uri);
        assert_eq!(params.text("prefix").unwrap().as_deref(), Some("a b+"));
        assert_eq!(params.number("limit").unwrap(), Some(12));
        assert!(params.text("twice").is_err());
        assert!(params.flag("flag").unwrap() && !params.flag("off").unwrap() && params.flag("bad").is_err());
        assert!(
            params.number("huge").is_err() && params.number("neg").is_err() && params.number("plus").is_err()
        );
        assert_eq!(params.number("missing").unwrap(), None);
    }
}
