//! Clients at work while faults happen, and the checks of what they were told.
//! Invariant: every operation is written down before it is sent and again when it ends, so that an outcome is
//! known, known not to have happened, or open; nothing that was acknowledged is ever forgotten.
//! It must not cause any fault.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary that includes this file uses a part of it"
)]

mod behind;
mod book;
mod gaps;
mod history;
mod leaders;
mod random;
mod registers;
mod verify;
mod writers;

pub(crate) use behind::{moves_on, short_log, snapshot_installed};
pub(crate) use book::{Book, Fate};
pub(crate) use gaps::Gaps;
pub(crate) use history::{History, Operation, What};
pub(crate) use leaders::Leaders;
pub(crate) use random::{Random, say};
pub(crate) use registers::Registers;
pub(crate) use verify::{addresses_of, equal_everywhere, metric, verify};
pub(crate) use writers::{Load, Plan};
