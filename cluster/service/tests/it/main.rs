//! The shell every process runs in, seen from outside: over real sockets and real files.
//! One file a feature. Nothing here sleeps in place of a condition.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test, with its place"
)]

mod authority;
mod bent;
mod bent_requests;
mod body;
mod config;
mod edge;
mod harness;
#[allow(
    dead_code,
    reason = "the tests of other crates use all of it, these only a part"
)]
mod heard;
mod metrics;
mod problem;
mod renewed;
mod secrets;
mod serve;
mod tasks;
mod tls;
