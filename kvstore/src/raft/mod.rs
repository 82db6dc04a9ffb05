//! Everything that knows openraft: its types, the log store, the network. No other folder names its
//! generics, so an upgrade touches this one (and the state machine's adapter).
//!
//! `desk` is what a leader does for others, `members` how the cluster changes, `start` how it begins.

#[cfg(test)]
pub(crate) mod bare;
#[cfg(test)]
mod bent;
pub mod clock;
pub mod config;
pub mod desk;
pub mod entry;
pub mod hours;
pub mod identity;
pub mod intake;
#[cfg(test)]
pub(crate) mod led;
pub mod log;
pub mod members;
pub mod mirrors;
pub mod network;
pub mod peers;
pub mod reads;
pub mod rounds;
pub mod start;
pub mod types;
pub mod under_way;
pub mod view;
