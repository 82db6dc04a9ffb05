//! Everything that touches the disk. What is synced when:
//!
//! | what | written | synced |
//! |---|---|---|
//! | log entries, vote | one batch by the log writer | before any acknowledgement (fdatasync) |
//! | durable-tail mark | after the log's fsync | by the kernel, whenever; before a truncation, at once |
//! | state machine | one batch an apply, no WAL | never by itself: the log replays a lost suffix |
//! | snapshot | files, then manifest, `.tmp` then rename | each file, then the folder |
//! | `CURRENT`, identity | `.tmp` then rename | the file, then the folder |

pub(crate) mod alike;
pub(crate) mod ceiling;
pub(crate) mod closing;
pub(crate) mod damage;
mod events;
pub(crate) mod files;
pub(crate) mod generations;
pub(crate) mod history;
pub(crate) mod kept;
pub(crate) mod keys;
pub(crate) mod log_db;
pub(crate) mod machine_base;
pub(crate) mod machine_db;
#[cfg(test)]
mod older;
mod records;
pub(crate) mod rows;
mod scratch;
mod tables;
pub(crate) mod walk;
