//! RFC 9457 problem documents, as a client reads them. The server's side is `service::problem`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// The stable word to branch on.
    pub code: String,
    pub request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// Members that only some problems have, such as `revision`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    /// A whole number among the extra members.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.extra.get(name).and_then(Value::as_u64)
    }
}
