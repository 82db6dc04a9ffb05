//! What of a message goes on to the other side, and what ends here.
//! Invariant: headers about one connection never cross; whoever called is named to the instance, not invented.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

const OF_ONE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Where the form of a checkout is sent. A browser sends forms without this header: this one has the key of its order in
/// its body, and the shop takes none without.
const KEYED_FORM: &str = "/shop/checkout";
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn without_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

/// For the instance. What a caller says about forwarding is replaced: this is the first that knows. The scheme is that
/// by which it was called.
pub(super) fn onward(
    headers: &mut HeaderMap,
    peer: Option<SocketAddr>,
    scheme: &'static str,
    request_id: &str,
) {
    without_connection(headers);
    // The body was read, so its length is known anew.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    headers.remove(FORWARDED_FOR);
    headers.remove(header::FORWARDED);
    if let Some(value) = peer.and_then(|peer| HeaderValue::try_from(peer.ip().to_string()).ok()) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.remove(FORWARDED_HOST);
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// For the caller.
pub(super) fn back(headers: &mut HeaderMap) {
    without_connection(headers);
    headers.remove(REQUEST_ID);
}

/// Whether doing it twice is the same as doing it once, with the headers that go on.
pub(super) fn is_repeatable(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let keyed_form = *method == Method::POST && path == KEYED_FORM;
    method.is_safe() || keyed_form || headers.contains_key(IDEMPOTENCY_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_belongs_to_one_connection_ends_here() {
        let mut given = headers(&[
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("host", "shop.example"),
            ("cookie", "session=1"),
        ]);
        onward(&mut given, Some("10.0.0.1:5".parse().unwrap()), "https", "r1");
        let wanted = headers(&[
            ("host", "shop.example"),
            ("cookie", "session=1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "r1"),
        ]);
        assert_eq!(given, wanted);
    }

    #[test]
    fn only_what_changes_nothing_twice_is_repeated() {
        let bare = HeaderMap::new();
        assert!(is_repeatable(&Method::GET, "/orders", &bare));
        assert!(!is_repeatable(&Method::POST, "/orders", &bare));
        assert!(!is_repeatable(&Method::DELETE, "/orders", &bare));
        let keyed = headers(&[("idempotency-key", "k")]);
        assert!(is_repeatable(&Method::POST, "/orders", &keyed));
        // Of the forms, only the one that always has a key.
        assert!(is_repeatable(&Method::POST, "/shop/checkout", &bare));
        assert!(!is_repeatable(&Method::DELETE, "/shop/checkout", &bare));
        assert!(!is_repeatable(&Method::POST, "/shop/checkout/x", &bare));
        assert!(!is_repeatable(&Method::POST, "/shop/cart", &bare));
    }
}
