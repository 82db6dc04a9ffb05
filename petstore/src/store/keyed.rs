//! What stands for something in the store that may not be read there: a keyed hash.
//! Invariant: without the secret nothing can be found out by trying; each use has a label of its own, so that what is
//! made for one is nothing to another.

use hmac::{Hmac, KeyInit as _, Mac as _};
use service::secrets::Secret;
use sha2::Sha256;

use crate::domain::{Username, hex};

/// 128 bits that stand for the parts; each with its length before it, so that no two lists are the same bytes.
pub(crate) fn keyed(secret: &Secret, label: &str, parts: &[&[u8]]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    for part in [label.as_bytes()].iter().chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    let tag = mac.finalize().into_bytes();
    let (half, _) = tag.split_at(16);
    hex(half)
}

/// A name that somebody typed to sign in. It may be a password that got into the wrong field.
pub(crate) struct TypedName(String);

impl TypedName {
    pub(crate) fn of(secret: &Secret, name: &Username) -> Self {
        Self(keyed(secret, "shop typed name", &[name.as_str().as_bytes()]))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
