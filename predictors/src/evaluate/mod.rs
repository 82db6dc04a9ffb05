//! How good the models and their consensus are: repeated stratified cross-validation.
//! Reading order: `figures`, `folds` (what a model says of rows it has not seen), `run`, `report`.
//! Invariant: no row is ever judged by a model that learned from it.
//! It must not know the store or HTTP.

mod figures;
mod folds;
mod report;
mod run;

pub use figures::Figures;
pub(crate) use figures::label;
pub use folds::{JUDGED_ROWS_MAX, cross_validated, out_of_fold};
pub use report::html;
pub use run::{Evaluation, Judged, Plan, evaluate};
