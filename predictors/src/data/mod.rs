//! What models learn from: a table of numbers with a label for each row.
//! Reading order: `table`, `iris` (embedded), `csv` (any file), `split` (folds for honest figures), `draw` (chance
//! that a seed decides).
//! It must not know any model.

#[cfg(test)]
mod bent;
mod csv;
mod draw;
mod iris;
mod split;
mod table;

pub use csv::{CsvOptions, Impute, read_csv};
pub use draw::Draw;
pub use iris::iris;
pub use split::{folds, sample};
pub use table::Table;
pub(crate) use table::hex;
