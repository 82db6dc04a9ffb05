//! Faults of processes, caused for real while clients work, each in some seconds; longer runs of the same and
//! faults of disks and networks stand in the binary `long`.
//! Invariant: a test whose fault did not happen fails.

mod checker;
mod crash;
mod lag;
mod membership;
mod pause;
mod stop;
mod watch;
