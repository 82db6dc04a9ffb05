//! What takes long: tables as large as they may be.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]
#![expect(
    clippy::print_stderr,
    reason = "the figures are what a person runs these tests for"
)]

mod million;
