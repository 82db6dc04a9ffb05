//! Models that stake tokens on being right, and the consensus they make.
//!
//! `stakes` (the rules), `data` and `models` (what is learned, and how), `evaluate` and `simulate` (how good that is)
//! are pure. `model` is the process of one model, `consensus` the one that asks them all and settles; `process` is what
//! both share, `wire` what travels. All state of both is in the store, so any process may die at any instruction.

#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent_requests.rs"]
mod bent_requests;
pub mod consensus;
pub mod data;
pub mod evaluate;
pub mod model;
pub mod models;
mod pass;
mod process;
pub mod simulate;
pub mod stakes;
mod wire;

pub use process::Settings;
