//! What a watch sends: the `data` of each server-sent event, and the names of the events.

use super::kv::KeyValue;
use super::mirror::{Granted, KeptAnswer};
use super::value::{self, Base64, Base64Ref};
use super::{LeaseId, Revision};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

/// Values of the `event:` field.
pub const EVENT_PUT: &str = "put";
pub const EVENT_DELETE: &str = "delete";
pub const EVENT_PROGRESS: &str = "progress";
pub const EVENT_COMPACTED: &str = "compacted";
pub const EVENT_LAGGING: &str = "lagging";

/// The data of `put` and `delete`. A deletion has no value, version 0, and the revision that deleted the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ChangeJson")]
pub struct Change {
    pub key: String,
    pub value: Option<Bytes>,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    /// 0: none.
    pub lease: LeaseId,
    /// The key before this change: only with `prev=1`, and only if it existed.
    pub prev: Option<KeyValue>,
    /// The lease of the key: only with `aside=1`, and only if it still lives.
    pub granted: Option<Granted>,
    /// The answer that was kept for this revision: only with `aside=1`, at the last change of the revision.
    pub kept: Option<KeptAnswer>,
}

#[derive(Deserialize)]
struct ChangeJson {
    key: String,
    value: Option<String>,
    value_base64: Option<Base64>,
    #[serde(default)]
    create_revision: Revision,
    mod_revision: Revision,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    lease: LeaseId,
    prev: Option<KeyValue>,
    granted: Option<Granted>,
    kept: Option<KeptAnswer>,
}

impl TryFrom<ChangeJson> for Change {
    type Error = String;

    fn try_from(json: ChangeJson) -> Result<Self, String> {
        Ok(Self {
            value: value::join(json.value, json.value_base64, "value")?,
            key: json.key,
            create_revision: json.create_revision,
            mod_revision: json.mod_revision,
            version: json.version,
            lease: json.lease,
            prev: json.prev,
            granted: json.granted,
            kept: json.kept,
        })
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            key: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            value: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            value_base64: Option<Base64Ref<'a>>,
            create_revision: Revision,
            mod_revision: Revision,
            version: u64,
            #[serde(skip_serializing_if = "is_none")]
            lease: LeaseId,
            #[serde(skip_serializing_if = "Option::is_none")]
            prev: Option<&'a KeyValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            granted: Option<&'a Granted>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kept: Option<&'a KeptAnswer>,
        }
        let (text, base64) = value::split(self.value.as_ref());
        Json {
            key: &self.key,
            value: text,
            value_base64: base64,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            prev: self.prev.as_ref(),
            granted: self.granted.as_ref(),
            kept: self.kept.as_ref(),
        }
        .serialize(serializer)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_none(lease: &LeaseId) -> bool {
    *lease == 0
}

/// The data of `progress` (all is delivered up to it) and `lagging` (resume from it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub revision: Revision,
}

/// The data of `compacted`: changes at this revision and before are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    pub compacted_revision: Revision,
}
