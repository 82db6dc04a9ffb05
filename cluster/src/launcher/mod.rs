//! The launcher: starts the processes of `cluster.toml` on this machine and watches over them.
//! In reading order: `plan` says what runs, `up` is the command, `coming` what it waits for, `place` the data folder it
//! holds alone, `supervisor` the whole, `keeper` one process, `journal` what happened to it, `control` how other
//! commands talk to the supervisor, `act`, `status`, `logs`, `down` those commands, `units` the same for other
//! machines, `system` one that lives only as long as the run that needs it, `harm` what a run does to one that is not
//! its own.
//! Invariant: one supervisor a data folder; when it dies, however it dies, its processes die with it.

pub(crate) mod act;
mod backoff;
#[cfg(test)]
mod bent;
mod coming;
pub(crate) mod control;
pub(crate) mod down;
mod harm;
pub(crate) mod journal;
pub(crate) mod keeper;
pub(crate) mod leader;
pub(crate) mod log_file;
pub(crate) mod logs;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod supervisor;
mod system;
pub(crate) mod units;
pub(crate) mod up;

pub(crate) use harm::Harm;
pub(crate) use state::{Action, State, Status, View};
pub(crate) use system::System;
