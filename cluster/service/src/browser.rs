//! What a service that shows pages owes to the browser: headers that forbid what the page does not need, and
//! checks that a change was asked for by a page of its own.
//! Invariant: a request that does not say where it comes from changes nothing.
//! It must not know any page, nor who is signed in.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::problem::{self, Problem, Result};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Scripts, styles, pictures and connections of our own, and nothing else; nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The headers that every page and everything that belongs to it carries.
pub fn protect(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Our own pages still say where their forms come from, which is what changes are judged by.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Whether a change is asked for by a page of this very service, as only a browser can say it.
pub fn check_own_origin(headers: &HeaderMap) -> Result<()> {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let own_origin = origin.map(|origin| authority(origin) == host(headers));
    let own_site = site.map(|site| site == b"same-origin");
    // What is there must agree, and one of them must be there.
    if own_origin != Some(false) && own_site != Some(false) && (own_origin, own_site) != (None, None) {
        return Ok(());
    }
    Err(Problem::new(
        problem::CROSS_ORIGIN,
        "Changes are taken only from the pages of this service itself.",
    ))
}

/// Whether the request names this machine the way only this machine is named, so that a page of another name
/// that was pointed here cannot read along.
pub fn check_local_host(headers: &HeaderMap) -> Result<()> {
    let host = host(headers).and_then(|host| std::str::from_utf8(host).ok());
    let name = host.map(|host| match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    });
    match name {
        Some("localhost" | "127.0.0.1" | "[::1]") => Ok(()),
        _ => Err(Problem::new(
            problem::WRONG_HOST,
            "This page is reached as localhost or 127.0.0.1.",
        )),
    }
}

fn host(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::HOST).map(HeaderValue::as_bytes)
}

/// What stands behind `http://` or `https://`; a proxy in front may speak the other one than we do.
fn authority(origin: &[u8]) -> Option<&[u8]> {
    origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_change_must_come_from_a_page_of_the_same_origin() {
        let asked = |origin: Option<&'static str>, site: Option<&'static str>| {
            let mut pairs = vec![(header::HOST, "127.0.0.1:8080")];
            pairs.extend(origin.map(|origin| (header::ORIGIN, origin)));
            pairs.extend(site.map(|site| (SEC_FETCH_SITE, site)));
            check_own_origin(&headers(&pairs)).is_ok()
        };
        let own = Some("http://127.0.0.1:8080");
        assert!(asked(own, Some("same-origin")));
        assert!(asked(own, None));
        assert!(asked(None, Some("same-origin")));
        assert!(asked(Some("https://127.0.0.1:8080"), None));
        for foreign in [
            "http://evil.example",
            "http://127.0.0.1:8081",
            "http://127.0.0.1:80801",
            "null",
            "",
            "127.0.0.1:8080",
        ] {
            assert!(!asked(Some(foreign), None), "{foreign}");
            assert!(!asked(Some(foreign), Some("same-origin")), "{foreign}");
        }
        for site in ["cross-site", "same-site", "none"] {
            assert!(!asked(own, Some(site)), "{site}");
            assert!(!asked(None, Some(site)), "{site}");
        }
        assert!(!asked(None, None), "nothing says where it comes from");
    }

    #[test]
    fn only_local_names_are_local() {
        let local = |host: &'static str| check_local_host(&headers(&[(header::HOST, host)])).is_ok();
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(local(host), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "",
            ":8080",
        ] {
            assert!(!local(host), "{host}");
        }
        assert!(check_local_host(&HeaderMap::new()).is_err());
    }
}
