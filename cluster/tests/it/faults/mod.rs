//! Faults of processes, caused for real while clients work, each in some seconds; longer runs of the same and
//! faults of disks and networks stand in the binary `long`.
//! Invariant: a test whose fault did not happen fails.

mod bad_disk;
mod checker;
pub(crate) mod crash;
mod folders;
mod lag;
pub(crate) mod membership;
mod membership_http;
pub(crate) mod pause;
pub(crate) mod replay;
pub(crate) mod rules;
mod stop;
mod watch;
mod watch_snapshot;
