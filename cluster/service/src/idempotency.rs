//! The header `Idempotency-Key`, as every service reads it.
//! Invariant: a key that is taken is 1 to 255 visible ASCII characters and was given once.
//! It must not know what becomes of a key.

use axum::http::{HeaderMap, HeaderName};

use crate::problem::Result;
use crate::query;

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that was given before.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// 1 to 255 visible ASCII characters, once.
pub fn key(headers: &HeaderMap) -> Result<Option<&[u8]>> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(key) = given.next() else { return Ok(None) };
    let key = key.as_bytes();
    let sound =
        given.next().is_none() && (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if !sound {
        return Err(query::malformed(
            "The header Idempotency-Key is 1 to 255 visible ASCII characters, given once.",
        ));
    }
    Ok(Some(key))
}
