//! The settings of the console, the page on which one watches and breaks the whole.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// `host:port` where it listens; empty for no console.
    pub address: String,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8080".to_owned(),
        }
    }
}
