//! Bearer tokens as requests carry them.
//! Invariant: exactly one credential is read, and nothing of it is ever repeated in an answer.
//! It must not know which tokens there are.

use axum::http::{HeaderMap, header};

use crate::problem::{self, Problem, Result};

/// The token of `Authorization: Bearer TOKEN`.
pub fn token(headers: &HeaderMap) -> Result<&[u8]> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(unauthorized("Send one header `Authorization: Bearer TOKEN`."));
    };
    let (scheme, secret) = value.as_bytes().split_at_checked(7).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(unauthorized("Send the token as `Authorization: Bearer TOKEN`."));
    }
    Ok(secret.trim_ascii())
}

pub fn unauthorized(detail: &str) -> Problem {
    Problem::new(problem::UNAUTHORIZED, detail)
}
