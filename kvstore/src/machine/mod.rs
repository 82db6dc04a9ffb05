//! The replicated state machine: what the log's entries mean.
//!
//! Reading order: `state` (what is kept), `base`, `overlay` and `draft` (what is met and what changes), `access`,
//! `txn`, `apply` (the meaning of each command; pure), then `commands` (of an entry), `decide` (of a batch),
//! `adapter` (openraft's side), `snapshot`, `replay` (what a log leads to), `hub`, `registry`, `interest`, `found`,
//! `turns`, `reading` and `watcher` (watches), `leases` (the leader's clock), `agreement` (with the other members),
//! `shares` (of the room for kept answers) and `gaps` (what a lost cluster may have written).

pub mod access;
pub mod adapter;
pub mod agreement;
pub mod apply;
pub mod base;
pub mod commands;
mod decide;
pub mod draft;
pub mod found;
pub mod gaps;
pub mod generation;
pub mod host;
pub mod hub;
pub mod interest;
pub mod leases;
mod mirrors;
pub mod overlay;
pub mod reading;
mod recent;
pub mod registry;
pub mod replay;
pub mod shares;
pub mod snapshot;
pub mod state;
pub mod turns;
pub mod txn;
pub mod watcher;

#[cfg(test)]
mod apply_model;
#[cfg(test)]
mod batching;
#[cfg(test)]
mod drift;
#[cfg(test)]
pub(crate) mod small;
