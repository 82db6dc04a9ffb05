//! The five models: how each is fitted and what it then says. The only place that names linfa.
//! linfa fits; what comes out is taken over into plain numbers of ours, which are what is stored and what predicts.
//! Reading order: `kind`, `fitted`, then one file a model, and `number` (what keeps them finite).
//! Invariant: for every finite row the probabilities are finite, not negative, and sum to 1.
//! It must not know the store, HTTP or stakes.

mod bayes;
mod fitted;
mod forest;
mod kind;
mod logistic;
mod mean_loss;
mod neighbours;
mod number;
mod tree;

pub use fitted::{Fitted, Predictor, fit};
pub use kind::Kind;
