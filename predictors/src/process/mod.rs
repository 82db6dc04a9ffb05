//! What the processes of this crate have in common: settings, a client of the store, a life from start to stop.

mod life;
mod store;

// What trouble with the store means for a caller.
pub(crate) use kvstore_client::problem_of as trouble;
pub use life::Settings;
pub(crate) use life::{Life, Routes, counted};
pub(crate) use store::client;
