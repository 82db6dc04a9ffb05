//! The shell every process runs in, seen from outside: over real sockets and real files.
//! One file a feature. Nothing here sleeps in place of a condition.

#![allow(
    clippy::unwrap_used,
    reason = "in a test a failed unwrap is a failed test, with its place"
)]

mod bent;
mod bent_requests;
mod body;
mod config;
mod edge;
mod harness;
mod metrics;
mod problem;
mod secrets;
mod serve;
mod tasks;
mod tls;
