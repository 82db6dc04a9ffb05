//! The contract of a store node, over real HTTP, against nodes that run in this process.
//!
//! One file a feature. `harness` starts nodes and speaks to them; `cases` runs those of a feature against one
//! node, and all of them again through each node of three. No case may rely on an empty store.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without, it may demand")]

#[macro_use]
mod cases;
#[expect(
    dead_code,
    reason = "the tests of the services on the store use it too, and some of it only they"
)]
mod harness;

mod aside;
mod bad_input;
mod compaction;
mod conditions;
mod events;
mod idempotency;
mod keys;
mod leases;
mod limits;
mod log_size;
mod mirrors;
mod mirrors_led_anew;
mod openapi;
mod ranges;
mod raw;
mod shutdown;
mod tokens;
mod txn;
mod walks;
mod watch;
