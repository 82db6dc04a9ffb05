//! The id of the request that is being answered, carried by the task that answers it.
//! Invariant: an id is 1 to 128 visible ASCII characters, so that it is safe in a header and in a log line.
//! It must not know routes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LENGTH_MAX: usize = 128;

tokio::task_local! {
    pub(crate) static CURRENT: HeaderValue;
}

/// The id of the request this task answers; a new one outside of any request.
pub(crate) fn current() -> String {
    let carried = CURRENT.try_with(|id| id.to_str().ok().map(str::to_owned));
    match carried {
        Ok(Some(id)) => id,
        _ => fresh(),
    }
}

/// The caller's id when it is one we can repeat, else a new one.
pub(crate) fn take_over_or_make(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(HEADER) {
        let visible = given.as_bytes().iter().all(u8::is_ascii_graphic);
        if visible && (1..=LENGTH_MAX).contains(&given.len()) {
            return given.clone();
        }
    }
    HeaderValue::try_from(fresh()).expect("hex digits and a hyphen are a header value")
}

/// Unique among processes by its random half and within one by its counter: no system call a request.
fn fresh() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process =
        PROCESS.get_or_init(|| getrandom::u64().expect("the operating system has random bytes to give"));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{process:016x}-{number:x}")
}
