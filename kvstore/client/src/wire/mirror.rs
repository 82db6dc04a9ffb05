//! Mirrors of the store: how they are announced, and how far they are.

use super::Revision;
use serde::{Deserialize, Serialize};

/// Body of `PUT /v1/mirrors/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRequest {
    /// `sync` or `async`.
    pub mode: String,
    /// `degrade` or `block`; counts only for `sync`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_loss: String,
    /// Names the mirror's database, so that one that was made anew is not taken for the one before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
}

/// Body of `POST /v1/mirrors/{name}/ack`: everything up to this revision is on the mirror's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorAck {
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub incarnation: String,
}

/// Answer of `PUT`, of `ack`, and one element of `GET /v1/mirrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    pub name: String,
    pub mode: String,
    pub on_loss: String,
    /// `ok`, `catching_up` or `degraded`.
    pub state: String,
    /// What it has said last that it has on its disk; `None` while this leader has not heard of it.
    #[serde(default)]
    pub acknowledged_revision: Option<Revision>,
    #[serde(default)]
    pub lag_revisions: Option<u64>,
    /// How long ago it was heard last.
    #[serde(default)]
    pub heard_ms_ago: Option<u64>,
}
