//! The consensus: asks all models at once, pools what they say, and settles when the truth is known.
//! Reading order: `keys` and `records` (what is stored), `network` (who takes part), `roster` (joining, staking,
//! leaving), `ask`, `rounds` and `room` (opening), `settler` and `batch` (outcomes), `ledger`, `history`, `sweep`,
//! `once`, `http`, `run`.
//! Invariant: tokens move only in transactions that hold while the book is unchanged, so that any number of processes
//! keep one ledger; nothing is kept between requests, so each may die at any instruction.

mod ask;
mod batch;
#[cfg(test)]
mod bent;
mod history;
mod http;
mod keys;
mod ledger;
mod network;
mod once;
mod play;
mod records;
mod room;
mod roster;
mod rounds;
mod run;
mod settler;
mod sweep;
mod tokens;

pub use run::run;
