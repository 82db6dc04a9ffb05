//! A pet shop on the store that cannot oversell or charge twice, whatever dies.
//!
//! `http → shop → (domain, store) → KvClient`. In reading order: `domain` (what cannot be wrong), `store` (where
//! everything stands), `shop` (the use cases), `http` (the contract), `run` (the process), `demo`, `points`.
//! Any number of instances share the store, and none keeps anything that another could not take over.

#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent_requests.rs"]
mod bent_requests;
mod demo;
mod domain;
mod http;
#[cfg(test)]
mod nowhere;
mod points;
mod run;
mod shop;
mod store;

pub use points::Points;
pub use run::{Settings, run};
