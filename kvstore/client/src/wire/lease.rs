//! Leases: keys that vanish unless someone keeps them alive.

use super::{LeaseId, Revision};
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    pub ttl_ms: u64,
    /// A revision that compaction must keep readable while the lease lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Revision>,
}

/// Answer of `POST /v1/leases` and of `POST /v1/leases/{id}/keepalive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: LeaseId,
    pub ttl_ms: u64,
}

/// Answer of `GET /v1/leases/{id}`; `GET /v1/leases` answers an array of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub id: LeaseId,
    pub ttl_ms: u64,
    pub remaining_ms: u64,
    /// Name of the token that made it.
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
    pub keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Revision>,
}
