//! The shell that every process of the menagerie runs in.
//! In reading order: `config` and `secrets` say what to run, `telemetry` and `metrics` show it,
//! `tasks` holds everything that runs, `serve` takes connections, as many as `open_files` leaves room for, `impatient`
//! ends those that take nothing, `tls` guards them, `edge` wraps every answer, `arrival` tells how old a request is, `body`, `fields`, `query`, `bearer`,
//! `peer` and `idempotency` read requests strictly, `browser` guards pages, `problem` is the only way an error becomes an
//! answer, `docs` shows a contract to people, `card_like` keeps card numbers out of names and logs, and `private` others
//! out of folders. `decimal`, `currency`, `money` and `catalogue` are what several services must read alike. Of stores,
//! shops and payments it knows nothing else, and it imports no other crate of ours.

pub mod arrival;
pub mod bearer;
pub mod body;
pub mod browser;
pub mod card_like;
pub mod catalogue;
pub mod config;
pub mod currency;
pub mod decimal;
pub mod docs;
pub mod edge;
pub mod fields;
#[cfg(test)]
#[allow(
    dead_code,
    reason = "the tests of other crates use all of it, these only a part"
)]
#[path = "../tests/it/heard.rs"]
mod heard;
pub mod http;
pub mod idempotency;
mod impatient;
pub mod metrics;
pub mod money;
pub mod open_files;
pub mod peer;
pub mod planted;
pub mod private;
pub mod problem;
pub mod query;
mod request_id;
pub mod secrets;
pub mod serve;
pub mod tasks;
pub mod telemetry;
pub mod time;
pub mod tls;
mod words;
