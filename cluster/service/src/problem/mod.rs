//! The one place that turns errors into HTTP answers (RFC 9457, `application/problem+json`).
//! Invariant: a body holds only what the caller may know and can act on; 429 and 503 say when to
//! come back, 401 says how to sign in. Internals go to the log, where the error is handled.
//! It must not know which route failed.

mod kinds;
mod page;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

pub use kinds::*;
pub(crate) use page::page;

use crate::request_id;

/// What kind of trouble it is. The code is stable: programs branch on it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub code: &'static str,
    pub status: u16,
    pub title: &'static str,
    /// What happened and what the caller should do: the text of the page `/problems/{code}`.
    pub help: &'static str,
}

/// One fault of a request, at one place of its JSON (RFC 6901) or a parameter's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub pointer: String,
    pub detail: String,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {detail}", kind.code)]
pub struct Problem {
    pub kind: &'static Kind,
    pub detail: String,
    pub errors: Vec<Fault>,
    pub retry_after_ms: Option<u64>,
    pub extra: Map<String, Value>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

pub type Result<T> = std::result::Result<T, Problem>;

/// Marks an answer that was made here, so that the edge does not explain it a second time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explained;

impl Problem {
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_ms: None,
            extra: Map::new(),
            headers: Vec::new(),
        }
    }

    /// A fault of ours: the error goes to the log, the caller learns only that it was not theirs.
    pub fn internal(doing: &str, error: impl Into<anyhow::Error>) -> Self {
        let error: anyhow::Error = error.into();
        tracing::error!(
            request.id = request_id::current(),
            error = format!("{error:#}"),
            "failed to {doing}"
        );
        Self::new(
            INTERNAL,
            "Something went wrong here; the log has it under this request id.",
        )
    }

    #[must_use]
    pub fn fault(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Fault {
            pointer: pointer.into(),
            detail: detail.into(),
        });
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// A further member of the body; it cannot replace one of the standard members.
    #[must_use]
    pub fn extra(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status).expect("the table of kinds holds valid statuses")
    }

    fn body(&self) -> Value {
        let mut body = self.extra.clone();
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        set("type", format!("/problems/{}", self.kind.code).into());
        set("title", self.kind.title.into());
        set("status", self.kind.status.into());
        set("detail", self.detail.as_str().into());
        set("code", self.kind.code.into());
        set("request_id", request_id::current().into());
        if let Some(retry_after_ms) = self.retry_after_ms {
            set("retry_after_ms", retry_after_ms.into());
        }
        if !self.errors.is_empty() {
            let faults = self.errors.iter();
            let faults = faults
                .map(|fault| json!({"pointer": fault.pointer, "detail": fault.detail}))
                .collect();
            set("errors", faults);
        }
        Value::Object(body)
    }

    /// Whole seconds, rounded up and at least one, as the header cannot say less.
    fn retry_after_s(&self) -> Option<u64> {
        let waits = matches!(self.kind.status, 429 | 503);
        if !waits && self.retry_after_ms.is_none() {
            return None;
        }
        Some(self.retry_after_ms.unwrap_or(1).div_ceil(1000).max(1))
    }

    /// What the head of the answer owes beside its status, in whatever form its body is.
    pub fn head(&self) -> HeaderMap {
        let mut head = HeaderMap::new();
        if let Some(seconds) = self.retry_after_s() {
            head.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind.status == 401 {
            head.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in &self.headers {
            head.append(name, value.clone());
        }
        head
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status();
        response.extensions_mut().insert(Explained);
        let headers = response.headers_mut();
        headers.extend(self.head());
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}

/// The kind with this code.
pub fn by_code(code: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| kind.code == code)
}
