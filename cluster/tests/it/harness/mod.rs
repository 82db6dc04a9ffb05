//! A cluster of real processes in a temporary folder, started and broken through the launched binary.
//! Invariant: nothing outlives the test: dropping the cluster stops every process, and a failed test
//! first shows the end of every log.
//! Other test binaries may include this folder by its path; it must not know what they test.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary that includes this file uses a part of it"
)]

mod cluster;
mod newcomers;
mod ports;
mod process;
mod wait;

pub(crate) use cluster::Cluster;
pub(crate) use newcomers::{
    let_in, member_of, start_newcomer, three_and_newcomers, three_with_newcomers, wait_for_member,
};
pub(crate) use ports::free_ports;
pub(crate) use process::{BINARY, Ran, command_of, lives, signal};
pub(crate) use wait::{SOON, wait_until};
