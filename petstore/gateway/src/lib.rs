//! One address in front of all instances: who is there, and a way to the next of them that works.
//! Reading order: `roster` (who is there, and who is left out), `refresh` (where it learns that), `http` (routes,
//! and passing requests on), `run`.
//! It keeps nothing: the registry stands in the store, under leases. It must not know what a shop does,
//! but for the one form that may be sent again since it carries the key of its order.

#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent.rs"]
mod bent;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/bent_requests.rs"]
mod bent_requests;
#[cfg(test)]
#[path = "../../../cluster/service/tests/it/heard.rs"]
mod heard;
mod http;
mod refresh;
mod roster;
mod run;

pub use run::{Settings, run};
