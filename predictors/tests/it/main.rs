//! Tests of the predictors: the rules of the stakes against their reference, and real processes on a real store.
//! Every file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

#[allow(dead_code, reason = "the tests of the store use all of it, these only a part")]
#[path = "../../../kvstore/tests/it/harness.rs"]
mod harness;
mod system;

mod absent;
mod adversaries;
mod infer;
mod joining;
mod models;
mod outcomes;
mod pages;
mod predict;
mod rounds;
mod simulate;
mod stakes;
mod stakes_properties;
mod twins;
