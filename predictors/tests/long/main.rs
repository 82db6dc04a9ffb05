//! What takes long: tables as large as they may be.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

mod million;
