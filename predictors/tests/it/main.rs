//! Tests of the predictors: the rules of the stakes against their reference, and real processes on a real store.
//! Every file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

mod models;
mod simulate;
mod stakes;
mod stakes_properties;
