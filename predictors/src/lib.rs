//! Models that stake tokens on being right, and the consensus they make.

pub mod data;
pub mod evaluate;
pub mod models;
pub mod simulate;
pub mod stakes;
