//! A second copy of the store in a database of another kind, for those who want to survive the loss of the first, or
//! to ask it in SQL.
//! Reading order: `row` (what changes), `shape` (which tables it makes), `copy` (SQLite and JSON), `writer` (many
//! revisions under one sync), `follow` (the watch, and the rebuild), `acks` (what the store waits for), `http`, `run`.
//! Invariant: the copy is at one revision: everything up to it is there, nothing after it.

mod acks;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent_requests.rs"]
mod bent_requests;
mod copy;
mod follow;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/heard.rs"]
mod heard;
mod http;
mod progress;
mod promote;
mod row;
mod run;
mod shape;
mod verify;
mod writer;

pub use promote::{PromotedRow, Source};
pub use run::{Settings, run};
