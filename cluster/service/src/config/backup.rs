//! Backups that are made by themselves.
//! Invariant: the defaults here are the ones the documentation states; bounds stand in `bounds`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupConfig {
    /// How often the leader makes one; 0 for never.
    pub every_s: u64,
    /// How many are kept; older ones are removed.
    pub keep: usize,
    /// Where they are written; empty for `backups` in the data folder.
    pub folder: PathBuf,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            every_s: 0,
            keep: 7,
            folder: PathBuf::new(),
        }
    }
}
