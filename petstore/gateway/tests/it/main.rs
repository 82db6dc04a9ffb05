//! Tests of the gateway: a real store, a real gateway, and instances that can be told to fail in chosen ways.
//! `system` starts them; every other file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

#[allow(dead_code, reason = "the tests of the store use all of it, these only a part")]
#[path = "../../../../kvstore/tests/it/harness.rs"]
mod harness;
mod instance;
mod system;

mod copies;
mod failing;
mod passing;
mod registry;
