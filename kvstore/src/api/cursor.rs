//! The place where a walk over pages goes on: opaque to callers, and signed.
//!
//! Invariant: only what this cluster signed is believed, since a cursor names a lease that the node renews
//! in its own name. It holds the whole question, so that every page of a walk asks the same one.

use axum::http::{HeaderValue, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use service::problem::Result;
use service::query;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::params::malformed;

const FORMAT: u8 = 1;
const SEAL_BYTES: usize = 16;
/// Parts the signatures of cursors from all others made with the same key.
const PURPOSE: &[u8] = b"kvstore range cursor 1\0";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) from: Vec<u8>,
    pub(super) to: Option<Vec<u8>>,
    pub(super) descending: bool,
    pub(super) keys_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) question: Question,
    pub(super) revision: u64,
    /// The last key of the page before.
    pub(super) after: Vec<u8>,
    /// The lease that keeps the revision readable; 0 if none could be had.
    pub(super) pin: u64,
    /// All keys of the range at that revision.
    pub(super) count: u64,
}

/// Where the next page is: the same question with another cursor.
pub(super) fn next_link(uri: &Uri, cursor: &str) -> HeaderValue {
    let link = format!("<{}>; rel=\"next\"", query::next_page(uri, cursor));
    HeaderValue::try_from(link).expect("visible ASCII is a header value")
}

fn seal(secret: &[u8], body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(PURPOSE);
    mac.update(body);
    let full = mac.finalize().into_bytes();
    full[..SEAL_BYTES].try_into().expect("a SHA-256 has 32 bytes")
}

impl Cursor {
    pub(super) fn encode(&self, secret: &[u8]) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("a cursor is plain data"));
        bytes.extend(seal(secret, &bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn decode(text: &str, secret: &[u8]) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let parts = bytes.as_deref().and_then(<[u8]>::split_last_chunk::<SEAL_BYTES>);
        let sealed = parts.filter(|(body, given)| bool::from(seal(secret, body).ct_eq(*given)));
        let cursor = sealed.and_then(|(body, _)| postcard::from_bytes(body.strip_prefix(&[FORMAT])?).ok());
        cursor.ok_or_else(|| {
            malformed("The parameter `cursor` is none that this store gave; begin the walk anew.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_believed_only_as_it_was_given() {
        let question = Question {
            from: b"a".into(),
            to: None,
            descending: true,
            keys_only: false,
        };
        let cursor = Cursor {
            question,
            revision: 7,
            after: b"a/b".into(),
            pin: 9,
            count: 3,
        };
        let text = cursor.encode(b"secret");
        assert_eq!(Cursor::decode(&text, b"secret").unwrap(), cursor);
        assert!(Cursor::decode(&text, b"another").is_err());
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(
                Cursor::decode(std::str::from_utf8(&forged).unwrap(), b"secret").is_err(),
                "byte {at}"
            );
            assert!(Cursor::decode(&text[..at], b"secret").is_err(), "cut at {at}");
        }
    }
}
