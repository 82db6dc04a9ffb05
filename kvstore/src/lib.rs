//! One node of the Menagerie store.
//!
//! The way of a write: `api` (HTTP) → `store` (propose, or forward to the leader) → `raft` (log, peers)
//! → `machine::apply` (pure) → `storage` (RocksDB) → answer and watchers. The way of a read: `api` →
//! `store` (wait for the read index) → `storage`. Modules stand here in that reading order.

pub mod api;
pub mod backup;
#[cfg(test)]
#[path = "../../cluster/service/tests/it/bent.rs"]
mod bent;
pub mod command;
pub mod machine;
pub mod metrics;
mod node;
pub mod raft;
mod storage;
pub mod store;
mod upkeep;

pub use machine::replay::Replay;
pub use node::{Settings, run};
pub use storage::alike::{Digest, Part, StoppedState};
pub use storage::ceiling::synced_batches;
pub use storage::damage::damage_in;
pub use storage::rows::{databases_in, visit_rows};
pub use upkeep::newest_backup_ms;
