//! The whole mechanism without processes: honest models and adversaries on a stream of rows with known outcomes.
//! Reading order: `network` (one network and its rounds), `scenario` (who takes part), `run` (many seeds).
//! Invariant: a seed decides everything.
//! It must not know the store or HTTP.

mod network;
mod run;
mod scenario;

pub use network::{Network, Played};
pub use run::{Simulation, simulate};
pub use scenario::Scenario;
pub(crate) use scenario::claim;
