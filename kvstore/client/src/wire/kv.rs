//! Keys, their values and pages of them.

use super::value::{self, Base64, Base64Ref};
use super::{LeaseId, Revision};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

/// One key at one revision. `value` is `None` only where values were not asked for (`keys_only`, a deletion).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "KeyValueJson")]
pub struct KeyValue {
    pub key: String,
    pub value: Option<Bytes>,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// 1 on creation, 0 when absent.
    pub version: u64,
    /// 0: none.
    pub lease: LeaseId,
}

impl KeyValue {
    /// The value, empty where it was not asked for.
    pub fn bytes(&self) -> Bytes {
        self.value.clone().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct KeyValueJson {
    key: String,
    value: Option<String>,
    value_base64: Option<Base64>,
    #[serde(default)]
    create_revision: Revision,
    #[serde(default)]
    mod_revision: Revision,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    lease: Option<LeaseId>,
}

impl TryFrom<KeyValueJson> for KeyValue {
    type Error = String;

    fn try_from(json: KeyValueJson) -> Result<Self, String> {
        Ok(Self {
            value: value::join(json.value, json.value_base64, "value")?,
            key: json.key,
            create_revision: json.create_revision,
            mod_revision: json.mod_revision,
            version: json.version,
            lease: json.lease.unwrap_or(0),
        })
    }
}

impl Serialize for KeyValue {
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
            lease: LeaseId,
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
        }
        .serialize(serializer)
    }
}

/// Answer of `PUT /v1/kv/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    pub key: String,
    pub revision: Revision,
    pub version: u64,
    pub created: bool,
}

/// Answer of `POST /v1/kv`: the key was made by the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub key: String,
    pub revision: Revision,
}

/// Answer of `DELETE /v1/kv/{key}` and `DELETE /v1/kv?prefix=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub revision: Revision,
    pub deleted: u64,
}

/// Answer of `GET /v1/kv?…`: rows of one revision. `cursor` asks for the next page of the same revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    pub count: u64,
    pub more: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Answer of `GET /v1/revision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionAnswer {
    pub revision: Revision,
}
