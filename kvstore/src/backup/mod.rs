//! Backups: the whole store at one revision, in one file with checksums.
//! Reading order: `format` (what the file looks like, reading and checking it), `make` (from a running node),
//! `restore` (a new cluster out of a file), `recover` (a file out of what a lost majority left behind), `copy` (what
//! that works on), `survivor` (what all that is left is worth), `assemble` (a file out of keys that somebody else
//! kept). In `work` lies what is not whole yet.
//! Invariant: a file that `verify` accepts is whole; a cluster made from it is a new one, to which no member of the
//! old one belongs.

mod assemble;
#[cfg(test)]
mod bent;
mod copy;
mod format;
mod make;
mod recover;
mod restore;
mod survivor;
mod work;

pub use assemble::{KeptRow, assemble};
pub use format::{Head, Reader, verify};
pub use make::{Source, write_to_file};
pub(crate) use make::{mark_of, write_while};
pub use recover::{inspect, recover};
pub use restore::{Beginning, NewCluster, NewNode, restore};
pub use survivor::{Survivor, Tally, tally};

/// Told how many bytes of how many are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
