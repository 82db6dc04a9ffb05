//! Keys in paths and queries: percent-encoded so that every URL library leaves them alone.
//! Segments `.` and `..` cannot be protected by any encoding, so such keys do not travel in paths at all.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// `/v1/kv/{key}`, or `None` for a key that can only travel in a body.
pub(crate) fn of_key(key: &str) -> Option<String> {
    if key.is_empty() || key.split('/').any(|segment| segment == "." || segment == "..") {
        return None;
    }
    let mut path = String::with_capacity(key.len() + 16);
    path.push_str("/v1/kv/");
    for (n, segment) in key.split('/').enumerate() {
        if n > 0 {
            // An empty segment's slash is encoded: some proxies fold `//` into `/`.
            path.push_str(if path.ends_with('/') { "%2F" } else { "/" });
        }
        path.extend(utf8_percent_encode(segment, RESERVED));
    }
    Some(path)
}

/// One segment of a path that is no key, such as a token's name.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A path and its query, built up parameter by parameter.
pub(crate) struct Target {
    text: String,
    queried: bool,
}

impl Target {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self {
            text: path.into(),
            queried: false,
        }
    }

    /// Adds `name=value`; the name is one of ours and needs no encoding.
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.text.push(if self.queried { '&' } else { '?' });
        self.queried = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(value, RESERVED));
        self
    }

    pub(crate) fn query_if<T: std::fmt::Display>(self, name: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.query(name, &value.to_string()),
            None => self,
        }
    }

    pub(crate) fn flag(self, name: &str, set: bool) -> Self {
        if set { self.query(name, "1") } else { self }
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, of_key, segment};
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    #[test]
    fn odd_keys_have_plain_paths() {
        let cases = [
            ("a", "/v1/kv/a"),
            ("shop/cart/7", "/v1/kv/shop/cart/7"),
            ("a?b#c%d e&f+g", "/v1/kv/a%3Fb%23c%25d%20e%26f%2Bg"),
            ("/lead", "/v1/kv/%2Flead"),
            ("//two", "/v1/kv/%2F/two"),
            ("a//b", "/v1/kv/a/%2Fb"),
            ("tail/", "/v1/kv/tail/"),
            ("é/\u{1F600}", "/v1/kv/%C3%A9/%F0%9F%98%80"),
            ("...", "/v1/kv/..."),
            (".a/b.", "/v1/kv/.a/b."),
            ("%2e%2e/x", "/v1/kv/%252e%252e/x"),
            ("nul\0", "/v1/kv/nul%00"),
        ];
        for (key, path) in cases {
            assert_eq!(of_key(key).as_deref(), Some(path), "{key:?}");
        }
    }

    #[test]
    fn dot_segments_do_not_travel_in_paths() {
        for key in ["", ".", "..", "./a", "a/..", "a/./b", "/..", "//."] {
            assert_eq!(of_key(key), None, "{key:?}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        let target = Target::new("/v1/kv")
            .query("prefix", "a&b=c/ä")
            .query_if("limit", Some(3))
            .query_if::<u64>("revision", None)
            .flag("keys_only", true)
            .flag("count_only", false);
        assert_eq!(
            target.into_string(),
            "/v1/kv?prefix=a%26b%3Dc%2F%C3%A4&limit=3&keys_only=1"
        );
        assert_eq!(segment("a/b"), "a%2Fb");
    }

    proptest! {
        #[test]
        fn any_key_survives_a_url_library(key in "[./%?#a é\\\\\u{0}-\u{10FFFF}]{1,12}") {
            if let Some(path) = of_key(&key) {
                let url = reqwest::Url::parse(&format!("http://127.0.0.1:7001{path}?x=1")).unwrap();
                prop_assert_eq!(url.path(), &path);
                prop_assert_eq!(url.query(), Some("x=1"));
                let tail = url.path().strip_prefix("/v1/kv/").unwrap();
                prop_assert_eq!(percent_decode_str(tail).decode_utf8().unwrap(), key.as_str());
            } else {
                prop_assert!(key.split('/').any(|segment| segment == "." || segment == ".."));
            }
        }
    }
}
