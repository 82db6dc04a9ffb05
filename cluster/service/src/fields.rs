//! Reads the members of a JSON object one by one and gathers every fault, each with a pointer (RFC 6901).
//! Numbers stay the text they were sent as, so that money never passes through a float.
//! Invariant: whoever calls `finish` before using what was read never sees a stand-in for something faulty.
//! It must not know any route.

use std::collections::BTreeMap;
use std::fmt::Display;

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::body;
use crate::problem::{self, Kind, Problem, Result};

/// A JSON object that is being read.
pub struct Fields {
    members: BTreeMap<String, Box<RawValue>>,
    faults: Vec<(String, String)>,
    kind: Option<&'static Kind>,
}

impl Fields {
    /// An empty body counts as `{}`.
    pub fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self> {
        Ok(Self {
            members: body::json(headers, body)?,
            faults: Vec::new(),
            kind: None,
        })
    }

    /// The member as it was sent; `null` counts as absent.
    pub fn raw(&self, name: &str) -> Option<&RawValue> {
        let raw = self.members.get(name).map(AsRef::as_ref);
        raw.filter(|raw| raw.get() != "null")
    }

    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    pub fn fault(&mut self, name: &str, detail: impl Display) {
        self.faults.push((pointer(name), detail.to_string()));
    }

    /// A fault that has a kind of problem of its own, which names the whole problem.
    pub fn fault_of(&mut self, kind: &'static Kind, name: &str, detail: impl Display) {
        self.kind.get_or_insert(kind);
        self.fault(name, detail);
    }

    /// An optional member of a plain type, such as a word or a number; `expected` says in words what it must be.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.raw(name)?.get();
        // Serde would take `{"word": null}` for a word, and a list for a struct.
        let plain = !text.starts_with(['{', '[']);
        let parsed = plain.then(|| serde_json::from_str(text).ok()).flatten();
        if parsed.is_none() {
            self.fault(name, format_args!("must be {expected}"));
        }
        parsed
    }

    pub fn optional_text(&mut self, name: &str) -> Option<String> {
        self.optional(name, "a string")
    }

    /// Marks the member as missing unless it is there.
    pub fn require(&mut self, name: &str) {
        if !self.has(name) {
            self.fault(name, "is missing");
        }
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.require(name);
        self.optional_text(name)
    }

    /// The problem that all faults make together, if there are any.
    pub fn finish(self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let kind = self.kind.unwrap_or(problem::INVALID_REQUEST);
        let detail = "The JSON can be read, but is not what this route takes; `errors` lists every fault.";
        let problem = Problem::new(kind, detail);
        let told = self.faults.into_iter();
        Err(told.fold(problem, |problem, (pointer, detail)| {
            problem.fault(pointer, detail)
        }))
    }
}

fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::read(&HeaderMap::new(), &Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn numbers_keep_their_digits() {
        let fields = fields(r#"{"amount": 0.30000000000000000001, "null": null}"#);
        assert_eq!(fields.raw("amount").unwrap().get(), "0.30000000000000000001");
        assert!(!fields.has("null") && !fields.has("absent"));
        assert!(fields.finish().is_ok());
    }

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Yes,
    }

    #[test]
    fn a_word_is_a_text_and_nothing_else() {
        let mut fields = fields(r#"{"a": "yes", "b": {"yes": null}, "c": ["yes"], "d": [], "e": "no"}"#);
        assert_eq!(fields.optional("a", "yes"), Some(Word::Yes));
        for name in ["b", "c", "d", "e"] {
            assert_eq!(fields.optional::<Word>(name, "yes"), None, "{name}");
        }
        let told = fields.finish().unwrap_err().errors;
        let told: Vec<_> = told.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(told, ["/b", "/c", "/d", "/e"]);
    }

    #[test]
    fn every_fault_is_told() {
        let mut fields = fields(r#"{"a": 1, "b/c": "x"}"#);
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.text("missing"), None);
        assert_eq!(fields.text("b/c").as_deref(), Some("x"));
        fields.fault_of(problem::INVALID_KEY, "b/c", "is no key");
        let problem = fields.finish().unwrap_err();
        assert_eq!(problem.kind, problem::INVALID_KEY);
        let told: Vec<_> = problem
            .errors
            .iter()
            .map(|fault| fault.pointer.as_str())
            .collect();
        assert_eq!(told, ["/a", "/missing", "/b~1c"]);
    }
}
