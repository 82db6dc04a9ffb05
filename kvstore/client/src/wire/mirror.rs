//! Mirrors of the store: how they are announced, and how far they are.

use super::{LeaseId, Revision, value};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The first answer given under an idempotency key. What it says is the store's own matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Name of the token that the key belongs to.
    pub owner: String,
    pub key: String,
    /// The revision that the answer tells.
    pub revision: Revision,
    /// By the store's clock, which may be behind the time of day.
    pub expires_ms: u64,
    /// For how long it is still kept, when it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    #[serde(with = "value::as_base64")]
    pub fingerprint: Bytes,
    #[serde(with = "value::as_base64")]
    pub reply: Bytes,
}

impl KeptAnswer {
    /// The same with its end by a clock that says `now_ms`, for who keeps a copy of it.
    #[must_use]
    pub fn by_clock(mut self, now_ms: u64) -> Self {
        if let Some(left_ms) = self.left_ms.take() {
            self.expires_ms = now_ms.saturating_add(left_ms);
        }
        self
    }
}

/// Answer of `GET /v1/answers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswers {
    pub answers: Vec<KeptAnswer>,
    pub more: bool,
}

/// A lease as it was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub id: LeaseId,
    pub ttl_ms: u64,
    /// Name of the token that made it.
    pub owner: String,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_by_its_own_clock() {
        // The store's clock is a day behind.
        let kept = KeptAnswer {
            expires_ms: 1_000,
            left_ms: Some(500),
            ..KeptAnswer::default()
        };
        let here = kept.by_clock(86_400_000);
        assert_eq!((here.expires_ms, here.left_ms), (86_400_500, None));
        // A store of before does not say how long.
        assert_eq!(here.clone().by_clock(90_000_000), here);
    }
}
