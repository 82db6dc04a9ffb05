//! Tests of the client against small scripted servers; those against the real store are in `kvstore`.
//! Each file is one feature.

#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what unwrap says here"
)]

mod admin;
mod backup;
mod canned;
mod leases;
mod mirrors;
mod near;
mod retry;
mod scan;
mod shapes;
mod txn;
mod watch;
