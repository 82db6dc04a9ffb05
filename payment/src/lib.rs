//! Card payments on the store: cards, holds, and a ledger that always balances.
//!
//! `http → ledger → (domain, vault) → KvClient`. In reading order: `domain` (what cannot be wrong), `vault` (what
//! needs the secret key), `ledger` (what money does), `http` (the contract), `run` (the process), `demo`,
//! `points` (where tests take hold).
//! Any number of processes share the store, and none keeps anything between requests: each may die at any instruction.

#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent_requests.rs"]
mod bent_requests;
mod demo;
mod domain;
mod http;
mod ledger;
mod points;
mod run;
mod vault;

pub use demo::CARDS as DEMO_CARDS;
pub use domain::{Brand, CardFault, CardNumber};
pub use points::{Moment, Points};
pub use run::{Settings, run};
