//! `Idempotency-Key`: what makes a repeated write the same write.
//!
//! The fingerprint is keyed, so that what is stored tells nothing of small bodies. It covers what the
//! caller sent and nothing that the node makes up, such as the random part of a new key.

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kvstore_client::wire::headers;
use service::problem::Result;
use sha2::Sha256;

use super::Api;
use super::params::malformed;
use crate::command::Once;

const TTL_S_MAX: u64 = 86_400;

/// The value of a header that may stand there once.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(malformed(format!("The header `{name}` is given twice.")));
    }
    Ok(first.map(axum::http::HeaderValue::as_bytes))
}

pub(super) fn once(api: &Api, parts: &Parts, body: &[u8]) -> Result<Option<Once>> {
    let Some(key) = single(&parts.headers, headers::IDEMPOTENCY_KEY)? else {
        return Ok(None);
    };
    let visible = key.iter().all(u8::is_ascii_graphic);
    let key = std::str::from_utf8(key)
        .ok()
        .filter(|key| visible && (1..=255).contains(&key.len()));
    let Some(key) = key else {
        return Err(malformed(
            "The header `Idempotency-Key` is 1 to 255 visible ASCII characters.",
        ));
    };
    Ok(Some(Once {
        key: key.to_owned(),
        fingerprint: fingerprint(api.store.fingerprint_key(), parts, body),
        ttl_ms: ttl_s(&parts.headers)? * 1000,
        // Whoever holds much of it is given less when the command leaves this node.
        room_bytes: api.limits.answers_bytes_max as u64,
    }))
}

fn ttl_s(headers: &HeaderMap) -> Result<u64> {
    let Some(text) = single(headers, headers::IDEMPOTENCY_TTL)? else {
        return Ok(headers::IDEMPOTENCY_TTL_S_DEFAULT);
    };
    let plain = text.len() <= 6 && text.iter().all(u8::is_ascii_digit);
    let seconds = std::str::from_utf8(text)
        .ok()
        .filter(|_| plain)
        .and_then(|text| text.parse().ok());
    seconds
        .filter(|seconds| (1..=TTL_S_MAX).contains(seconds))
        .ok_or_else(|| {
            malformed(format!(
                "The header `Idempotency-Ttl` is a number of seconds from 1 to {TTL_S_MAX}."
            ))
        })
}

fn fingerprint(secret: &[u8], parts: &Parts, body: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut add = |part: &[u8]| {
        // With its length before it, no two requests run together into the same bytes.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    };
    add(parts.method.as_str().as_bytes());
    add(target.as_bytes());
    for name in [IF_MATCH, IF_NONE_MATCH] {
        let values = parts.headers.get_all(name);
        add(&(values.iter().count() as u64).to_le_bytes());
        for value in &values {
            add(value.as_bytes());
        }
    }
    add(body);
    let full = mac.finalize().into_bytes();
    full[..16].try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderValue, Request};
    use service::arrival;
    use service::config::LimitsConfig;
    use service::time::Since;
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::half_made::{request, seed};
    use crate::api::router;
    use crate::raft::bare::Bare;
    use crate::raft::start::root_rules;
    use crate::store::Store;

    fn of(method: &str, target: &str, if_match: Option<&str>, body: &[u8]) -> [u8; 16] {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(if_match) = if_match {
            request = request.header(IF_MATCH, if_match);
        }
        fingerprint(b"secret", &request.body(()).unwrap().into_parts().0, body)
    }

    #[test]
    fn every_part_of_a_request_counts() {
        let all = [
            of("PUT", "/v1/kv/a", None, b"x"),
            of("POST", "/v1/kv/a", None, b"x"),
            of("PUT", "/v1/kv/b", None, b"x"),
            of("PUT", "/v1/kv/a?lease=1", None, b"x"),
            of("PUT", "/v1/kv/a", Some("\"1\""), b"x"),
            of("PUT", "/v1/kv/a", Some("\"2\""), b"x"),
            of("PUT", "/v1/kv/a", None, b""),
            of("PUT", "/v1/kv/a", None, b"xx"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(all[0], of("PUT", "/v1/kv/a", None, b"x"));
    }

    /// As where this process is held in the middle of a handler: the caller may have had it done by another node since,
    /// and that one have forgotten it.
    #[tokio::test]
    async fn what_came_too_long_ago_is_not_done_under_its_key() {
        let node = Bare::cluster(1).await.remove(0);
        seed(&node, "an id", "root", root_rules()).await;
        let limits = LimitsConfig::default();
        let app = router(Api::new(Store::over(&node, &limits), limits));
        let put = async |key: Option<&'static str>, age_s: u64| {
            let mut request = request("PUT", "/v1/kv/k", Some("root"));
            if let Some(key) = key {
                let told = request.headers_mut();
                told.insert(headers::IDEMPOTENCY_KEY, HeaderValue::from_static(key));
                told.insert(headers::IDEMPOTENCY_TTL, HeaderValue::from_static("60"));
            }
            let came = Since::now().earlier(Duration::from_secs(age_s));
            let answer = arrival::answering(came, app.clone().oneshot(request)).await;
            answer.unwrap().status().as_u16()
        };
        let revision = || node.desk.machine.state().revision;
        let before = revision();
        assert_eq!(put(Some("a"), 31).await, 503);
        assert_eq!(put(Some("a"), 20).await, 200);
        // It is sent once, and who sends it knows that.
        assert_eq!(put(None, 31).await, 200);
        assert_eq!(revision(), before + 2);
        node.end().await;
    }
}
