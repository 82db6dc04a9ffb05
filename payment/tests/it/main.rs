//! Tests of the payment service: real instances on free ports, a real store in a temporary folder.
//! `system` starts them, `numbers` looks for card numbers; every other file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

#[allow(dead_code, reason = "the tests of the store use all of it, these only a part")]
#[path = "../../../kvstore/tests/it/harness.rs"]
mod harness;
mod numbers;
mod system;
mod trap;
#[path = "../../../petstore/tests/it/vessel.rs"]
mod vessel;

mod auth;
mod cards;
mod client;
mod idempotency;
mod interleavings;
mod kills;
mod ledger;
mod model;
mod openapi;
mod pages;
mod payments;
mod reading;
mod refunds;
mod secrecy;
mod simple;
mod subjects;
mod sweep;
mod throttle;
mod tokens;
mod trouble;
mod twins;
