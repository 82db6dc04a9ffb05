//! Faults that take long to cause, or need a disk or a network of their own: real processes, real power loss.
//! `disk` and `network` are what can be broken; every other file is one kind of fault.
//! Invariant: a fault that could not be caused fails its test, with what is missing.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without, it may demand")]

#[path = "../it/harness/mod.rs"]
mod harness;
#[path = "../it/load/mod.rs"]
mod load;

mod disk;
mod drive;
#[allow(
    dead_code,
    reason = "the demo of the fallacies has links between clients and nodes too"
)]
#[path = "../../src/arena/links.rs"]
mod links;
mod network;
#[path = "../../src/chaos/power.rs"]
mod power;
mod used;

mod chaos;
mod contract;
mod copies;
mod damage;
mod full_disk;
mod kills;
mod letters;
mod membership;
mod million;
mod overload;
mod partition;
mod payment_chaos;
mod payment_steps;
mod power_install;
mod power_loss;
mod steady;
mod upgrade;
mod weather;
mod whole;

#[cfg(feature = "planted")]
#[path = "../it/faults/mod.rs"]
mod faults;
#[cfg(feature = "planted")]
mod planted;

/// The nodes of every cluster here.
const ALL: [&str; 3] = ["n1", "n2", "n3"];
