//! Reads JSON field by field and gathers every fault, each with a pointer to its place (RFC 6901).
//!
//! Readers answer something harmless for what is faulty and go on, so that the caller learns of all faults
//! at once. Invariant: whoever calls `finish` before using what was read never sees such a stand-in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};
use service::config::LimitsConfig;
use service::problem::{self, Problem, Result};

/// Faults told at most; what every op of a transaction has wrong is not yet so many.
const FAULTS_MAX: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// A value that is too large, which has a status of its own.
    Size,
    Key,
    Other,
}

pub(super) struct Fields<'l> {
    limits: &'l LimitsConfig,
    faults: Vec<(Weight, String, String)>,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'l> Fields<'l> {
    pub(super) fn new(limits: &'l LimitsConfig) -> Self {
        Self {
            limits,
            faults: Vec::new(),
        }
    }

    pub(super) fn fault(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.add(Weight::Other, pointer.into(), detail.into());
    }

    fn add(&mut self, weight: Weight, pointer: String, detail: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push((weight, pointer, detail));
        }
    }

    /// The problem that all faults make together, if there are any.
    pub(super) fn finish(self) -> Result<()> {
        let Some(heaviest) = self.faults.iter().map(|(weight, ..)| *weight).max() else {
            return Ok(());
        };
        let kind = match heaviest {
            Weight::Size => problem::TOO_LARGE,
            Weight::Key => problem::INVALID_KEY,
            Weight::Other => problem::INVALID_REQUEST,
        };
        let detail = "The JSON can be read, but is not what this route takes; `errors` lists every fault.";
        let problem = Problem::new(kind, detail);
        Err(self
            .faults
            .into_iter()
            .fold(problem, |problem, (_, pointer, detail)| {
                problem.fault(pointer, detail)
            }))
    }

    pub(super) fn object<'v>(&mut self, value: &'v Value, at: &str) -> &'v Map<String, Value> {
        if let Value::Object(map) = value {
            return map;
        }
        self.fault(at, "must be an object");
        &EMPTY
    }

    /// An optional array of at most `max` values.
    pub(super) fn list<'v>(
        &mut self,
        map: &'v Map<String, Value>,
        at: &str,
        name: &str,
        max: usize,
    ) -> Option<&'v [Value]> {
        match map.get(name).unwrap_or(&Value::Null) {
            Value::Null => None,
            Value::Array(list) if list.len() <= max => Some(list),
            Value::Array(list) => {
                self.fault(
                    place(at, name),
                    format!("has {} entries, at most {max} are allowed", list.len()),
                );
                Some(&[])
            }
            _ => {
                self.fault(place(at, name), "must be an array");
                Some(&[])
            }
        }
    }

    pub(super) fn optional_text<'v>(
        &mut self,
        map: &'v Map<String, Value>,
        at: &str,
        name: &str,
    ) -> Option<&'v str> {
        match map.get(name).unwrap_or(&Value::Null) {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                self.fault(place(at, name), "must be a string");
                Some("")
            }
        }
    }

    pub(super) fn text<'v>(&mut self, map: &'v Map<String, Value>, at: &str, name: &str) -> &'v str {
        self.optional_text(map, at, name).unwrap_or_else(|| {
            self.fault(place(at, name), "is missing");
            ""
        })
    }

    /// A number that counts something: never negative.
    pub(super) fn optional_number(&mut self, map: &Map<String, Value>, at: &str, name: &str) -> Option<u64> {
        match map.get(name).unwrap_or(&Value::Null) {
            Value::Null => None,
            value => Some(value.as_u64().unwrap_or_else(|| {
                self.fault(place(at, name), "must be a whole number from 0 to 2^64 - 1");
                0
            })),
        }
    }

    pub(super) fn number(&mut self, map: &Map<String, Value>, at: &str, name: &str) -> u64 {
        self.optional_number(map, at, name).unwrap_or_else(|| {
            self.fault(place(at, name), "is missing");
            0
        })
    }

    pub(super) fn optional_int(&mut self, map: &Map<String, Value>, at: &str, name: &str) -> Option<i64> {
        match map.get(name).unwrap_or(&Value::Null) {
            Value::Null => None,
            value => Some(value.as_i64().unwrap_or_else(|| {
                self.fault(place(at, name), "must be a 64-bit integer");
                0
            })),
        }
    }

    pub(super) fn int(&mut self, map: &Map<String, Value>, at: &str, name: &str) -> i64 {
        self.optional_int(map, at, name).unwrap_or_else(|| {
            self.fault(place(at, name), "is missing");
            0
        })
    }

    pub(super) fn key(&mut self, map: &Map<String, Value>, at: &str) -> Bytes {
        let faults = self.faults.len();
        let key = self.text(map, at, "key");
        let max = self.limits.key_bytes_max;
        if self.faults.len() == faults && !(1..=max).contains(&key.len()) {
            let detail = format!("must be 1 to {max} bytes of UTF-8, this has {}", key.len());
            self.add(Weight::Key, place(at, "key"), detail);
        }
        Bytes::copy_from_slice(key.as_bytes())
    }

    /// A prefix may be empty: then it is that of every key.
    pub(super) fn prefix(&mut self, map: &Map<String, Value>, at: &str) -> Bytes {
        let prefix = self.text(map, at, "prefix");
        let max = self.limits.key_bytes_max;
        if prefix.len() > max {
            let detail = format!(
                "must have at most {max} bytes, since no key is longer; this has {}",
                prefix.len()
            );
            self.add(Weight::Key, place(at, "prefix"), detail);
        }
        Bytes::copy_from_slice(prefix.as_bytes())
    }

    /// Bytes given as text under `name` or as base64 under `name_base64`: exactly one of them.
    pub(super) fn bytes(&mut self, map: &Map<String, Value>, at: &str, name: &str) -> Bytes {
        let encoded_name = format!("{name}_base64");
        let text = self.optional_text(map, at, name);
        let encoded = self.optional_text(map, at, &encoded_name);
        let (bytes, named) = match (text, encoded) {
            (Some(text), None) => (Bytes::copy_from_slice(text.as_bytes()), name),
            (None, Some(encoded)) => match STANDARD.decode(encoded) {
                Ok(bytes) => (Bytes::from(bytes), encoded_name.as_str()),
                Err(error) => {
                    self.fault(place(at, &encoded_name), format!("is not base64: {error}"));
                    (Bytes::new(), name)
                }
            },
            (Some(_), Some(_)) => {
                self.fault(at, format!("`{name}` and `{encoded_name}` exclude each other"));
                (Bytes::new(), name)
            }
            (None, None) => {
                self.fault(place(at, name), "is missing");
                (Bytes::new(), name)
            }
        };
        let max = self.limits.value_bytes_max;
        if bytes.len() > max {
            let detail = format!("has {} bytes, at most {max} are allowed", bytes.len());
            self.add(Weight::Size, place(at, named), detail);
        }
        bytes
    }
}

/// The pointer to the member `name` of what `at` points to.
pub(super) fn place(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}
