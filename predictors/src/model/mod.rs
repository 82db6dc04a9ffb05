//! One model as a process: it learns or loads, and answers what it thinks of a row.
//! Reading order: `card` (what is known of a model), `load` and `obtain` (learn once, keep in the store), `behave`
//! (how models misbehave for the classroom), `http`, `run`.
//! Invariant: nothing is answered before the model is whole; the process keeps nothing that the store does not have.

mod behave;
#[cfg(test)]
mod bent;
mod card;
mod http;
mod load;
mod obtain;
mod run;

pub use card::Card;
pub use run::run;
