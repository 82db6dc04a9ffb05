//! Tests of the mirror: a real store and a real mirror in this process.
//! `system` starts them; every other file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

#[allow(dead_code, reason = "the tests of the store use all of it, these only a part")]
#[path = "../../../../kvstore/tests/it/harness.rs"]
mod harness;
mod system;

mod copying;
mod passing;
mod reading;
mod trouble;
