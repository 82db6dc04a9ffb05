//! Access tokens: a name and the prefixes it may read or write. The secret travels once, in the answer that makes it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    Read,
    Write,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub prefix: String,
    pub access: Access,
}

/// Body of `PUT /v1/tokens/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    pub prefixes: Vec<Rule>,
}

/// One row of `GET /v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRules {
    pub name: String,
    pub prefixes: Vec<Rule>,
}

/// Answer of `PUT /v1/tokens/{name}`. Its `Debug` hides the secret, so that no log can hold it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    pub name: String,
    pub prefixes: Vec<Rule>,
    pub token: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NewToken")
            .field("name", &self.name)
            .field("prefixes", &self.prefixes)
            .field("token", &"…")
            .finish()
    }
}
