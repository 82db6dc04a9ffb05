//! The launcher: starts the processes of `cluster.toml` on this machine and watches over them.
//! In reading order: `up` is the command, `place` the data folder it holds alone, `supervisor` the whole,
//! `keeper` one process, `control` how other commands talk to the supervisor, `act`, `status`, `down` those commands.
//! Invariant: one supervisor a data folder; when it dies, however it dies, its processes die with it.

pub(crate) mod act;
pub(crate) mod control;
pub(crate) mod down;
pub(crate) mod keeper;
pub(crate) mod leader;
pub(crate) mod place;
pub(crate) mod ports;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod up;

pub(crate) use state::{Action, State, Status, View};
