//! Bytes in JSON: `"value"` when they are UTF-8, else `"value_base64"`; readers take either, but not both.
//! Both fields are private to the wire: everyone else sees one `Bytes`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Bytes that are base64 text in JSON.
pub(super) struct Base64(pub(super) Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Ok(Self(bytes.into())),
            Err(error) => Err(de::Error::custom(format!("not base64: {error}"))),
        }
    }
}

/// Bytes that are base64 text in JSON, when writing.
pub(super) struct Base64Ref<'a>(&'a [u8]);

impl Serialize for Base64Ref<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

/// For fields that are base64 text always: `#[serde(with = "value::as_base64")]`.
pub(super) mod as_base64 {
    use super::{Base64, Base64Ref, Bytes, Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        Base64Ref(bytes).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Base64::deserialize(from).map(|Base64(bytes)| bytes)
    }
}

/// The two fields that hold `bytes`: exactly one is `Some`, if there are bytes at all.
pub(super) fn split(bytes: Option<&Bytes>) -> (Option<&str>, Option<Base64Ref<'_>>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(Base64Ref(bytes))),
    }
}

/// The bytes that the two fields held.
pub(super) fn join(
    text: Option<String>,
    base64: Option<Base64>,
    name: &str,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("`{name}` and `{name}_base64` exclude each other")),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(Base64(bytes))) => Ok(Some(bytes)),
        (None, None) => Ok(None),
    }
}
