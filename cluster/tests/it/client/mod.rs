//! `KvClient` against real nodes that die under it: what it promises its callers holds all the same.

mod lease;
mod near;
mod outcome;
