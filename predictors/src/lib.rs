//! Models that stake tokens on being right, and the consensus they make.

pub mod stakes;
