//! The word by which a model knows the consensus, where models answer nobody else.
//! Invariant: each place has a word of its own, so that a model cannot use what it was told to ask another.

use hmac::{Hmac, KeyInit as _, Mac as _};
use service::secrets::{Secret, Secrets};
use sha2::Sha256;

use crate::data::hex;

/// `place` is the `host:port` of the model.
pub(crate) fn pass(secrets: &Secrets, place: &str) -> Secret {
    Secret::new(keyed(secrets, "ask a model", &[place.as_bytes()]))
}

/// An HMAC over parts, each with its length, so that none can reach into the next.
pub(crate) fn keyed(secrets: &Secrets, purpose: &str, parts: &[&[u8]]) -> String {
    let key = secrets.keys.cluster.expose().as_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    for part in [b"predictors".as_slice(), purpose.as_bytes()].iter().chain(parts) {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    hex(&mac.finalize().into_bytes())
}
