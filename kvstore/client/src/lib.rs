//! The typed client of the store, and the types on its wire.
//! Reading order: `wire` (what travels), `client` (how to make one), `keys`, `txn`, `leases`, `watch`, `near`.
//! A call is repeated only where that is safe, and an unknown outcome is an error of its own, never a failure.
//! It must not know how a node stores or replicates anything.

mod admin;
mod attempt;
mod backup;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
mod bent_answers;
mod call;
mod client;
mod dot_keys;
mod endpoints;
mod error;
mod keys;
mod leases;
mod mirrors;
mod near;
mod opening;
mod path;
mod refusal;
mod registration;
mod scan;
mod sse;
mod txn;
mod verdict;
mod watch;
pub mod wire;

pub use client::{Builder, KvClient};
pub use endpoints::Reads;
pub use error::{Error, Result, Trouble};
pub use keys::{PutOptions, RangeRequest, Read, ReadOptions};
pub use leases::LeaseHandle;
pub use near::{Cached, Freshness, NearCache};
pub use refusal::problem_of;
pub use registration::Registration;
pub use scan::{PageWalk, Scan};
pub use txn::Txn;
pub use watch::{EventKind, WatchBatch, WatchEvent, WatchRequest, WatchStream};
