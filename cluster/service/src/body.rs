//! Strict readers of request bodies.
//! Invariant: no more than the allowed bytes are ever held, nesting is bounded before anything is built,
//! and every refusal is a problem that says what to mend.
//! It must not know any route or any type of a service.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};
use tokio::time::Instant;

use crate::problem::{self, Problem, Result};
use crate::words;

/// How deep JSON may be nested.
pub const JSON_DEPTH_MAX: usize = 64;

/// How much of a body that is refused for its size is still taken off the wire, so that the caller reads the refusal
/// in place of a reset connection.
pub const DISCARD_BYTES_MAX: u64 = 64 << 20;

/// Takes a body off the wire that nobody wants.
pub async fn discard(mut body: Body, deadline: Instant) {
    let reading = async { while let Some(Ok(_frame)) = body.frame().await {} };
    if tokio::time::timeout_at(deadline, reading).await.is_err() {
        tracing::debug!("a body that is too large did not end in time");
    }
}

/// Reads a whole body of at most `bytes_max` bytes, which must have arrived by the deadline.
pub async fn read(body: Body, bytes_max: usize, deadline: Instant) -> Result<Bytes> {
    let announced = body.size_hint().lower();
    if announced > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        if announced <= DISCARD_BYTES_MAX {
            discard(body, deadline).await;
        }
        return Err(too_large(bytes_max));
    }
    let collected = tokio::time::timeout_at(deadline, Limited::new(body, bytes_max).collect()).await;
    let Ok(collected) = collected else {
        return Err(Problem::new(
            problem::BODY_TIMEOUT,
            "The body did not arrive within the time a request may take.",
        ));
    };
    match collected {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large(bytes_max)),
        Err(error) => {
            tracing::debug!(error = %error, source = ?error.source(), "a body broke off");
            Err(Problem::new(
                problem::MALFORMED_BODY,
                "The body broke off before it was complete.",
            ))
        }
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        problem::TOO_LARGE,
        format!("The body is larger than the {bytes_max} bytes allowed here."),
    )
}

/// A struct that stands within a request, as a member or in a list. Serde would take an array for it, field by field;
/// nobody who sends one means that.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> std::result::Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// Parses a JSON object, as all our requests are; an empty body counts as `{}`.
pub fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T> {
    json_to_depth(headers, body, JSON_DEPTH_MAX)
}

/// The same with another bound on the nesting.
pub fn json_to_depth<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes, depth_max: usize) -> Result<T> {
    let text: &[u8] = if body.is_empty() {
        // Nothing is of no type, whatever the caller's program names for every POST.
        b"{}"
    } else {
        check_content_type(headers)?;
        body
    };
    check_depth(text, depth_max)?;
    check_object(text)?;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    match T::deserialize(tracked) {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(malformed(&error)),
        },
        Err(error) => Err(explain(&error, &track.path(), text)),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Problem::new(
        problem::UNSUPPORTED_MEDIA_TYPE,
        "This route takes JSON: send Content-Type: application/json, or none.",
    ))
}

/// Counts brackets outside strings. What is not JSON at all is left to the parser to refuse.
fn check_depth(text: &[u8], depth_max: usize) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return Err(Problem::new(
                problem::MALFORMED_JSON,
                format!("The JSON is nested deeper than {depth_max} levels."),
            ));
        }
    }
    Ok(())
}

/// What `Object` is within a request: whatever type the route reads, an array is none of ours.
fn check_object(text: &[u8]) -> Result<()> {
    if text.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    match serde_json::from_slice::<IgnoredAny>(text) {
        Err(broken) => Err(malformed(&broken)),
        Ok(IgnoredAny) => Err(invalid(String::new(), "expected an object".to_owned())),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(
        problem::MALFORMED_JSON,
        format!(
            "The body is not valid JSON at line {}, column {}.",
            error.line(),
            error.column()
        ),
    )
}

fn explain(error: &serde_json::Error, path: &Path, text: &[u8]) -> Problem {
    if error.classify() != Category::Data {
        return malformed(error);
    }
    // A wrong type may stand before broken syntax; broken syntax is what the caller must mend first.
    if let Err(broken) = serde_json::from_slice::<IgnoredAny>(text) {
        return malformed(&broken);
    }
    let message = words::plain(without_place(&error.to_string()));
    let mut pointer = json_pointer(path);
    if let Some(field) = quoted_after(&message, "missing field `") {
        pointer.push('/');
        pointer.push_str(&escape_segment(field));
    }
    invalid(pointer, message)
}

fn invalid(pointer: String, message: String) -> Problem {
    let detail = "The JSON is well-formed, but a field of it is not what this route takes.";
    Problem::new(problem::INVALID_REQUEST, detail).fault(pointer, message)
}

/// Serde appends the line and column, which the pointer says better.
fn without_place(message: &str) -> &str {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    &message[..end]
}

fn quoted_after<'text>(message: &'text str, start: &str) -> Option<&'text str> {
    message.strip_prefix(start)?.strip_suffix('`')
}

/// RFC 6901; empty for the whole document.
fn json_pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => escape_segment(key),
            Segment::Enum { variant } => escape_segment(variant),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&step);
    }
    pointer
}

fn escape_segment(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}
