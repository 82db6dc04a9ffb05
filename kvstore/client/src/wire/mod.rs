//! The JSON of the store's HTTP contract, by topic. Field names are the contract's, to the letter.
//! Unknown fields are ignored when reading; what contradicts itself is refused with a sentence that says how.
//! These are not the log's types and not the stored ones: both sides convert by hand.

#[cfg(test)]
mod bent;
pub mod cluster;
pub mod headers;
pub mod kv;
pub mod lease;
pub mod level;
pub mod mirror;
pub mod problem;
pub mod tokens;
pub mod txn;
mod value;
pub mod watch;

/// The number of a committed transaction that wrote something. Zero comes before the first.
pub type Revision = u64;

/// A lease. Zero in a key's `lease` means that it has none.
pub type LeaseId = u64;
