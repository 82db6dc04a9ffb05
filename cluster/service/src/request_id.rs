//! The id of the request that is being answered, carried by the task that answers it and by all that this one begins.
//! Invariant: an id is 1 to 128 visible ASCII characters, so that it is safe in a header and in a log line.
//! It must not know routes.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::future::Either;

use crate::card_like::{could_be_card, has_card_number};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LENGTH_MAX: usize = 128;
/// With these bits set, the first of sixteen hexadecimal digits is a letter.
const LETTER: u64 = 0xa000_0000_0000_0000;
/// Two numbers of sixteen digits at most, and the hyphen.
const FRESH_BYTES_MAX: usize = 33;

tokio::task_local! {
    pub(crate) static CURRENT: HeaderValue;
}

/// The id of the request this task answers; a new one outside of any request.
pub(crate) fn current() -> String {
    let carried = CURRENT.try_with(|id| id.to_str().ok().map(str::to_owned));
    match carried {
        Ok(Some(id)) => id,
        _ => text(&fresh()).to_owned(),
    }
}

/// What a task that is begun here takes with it; nothing outside of any request.
pub(crate) struct Carried(Option<HeaderValue>);

impl Carried {
    pub(crate) fn take() -> Self {
        Self(CURRENT.try_with(HeaderValue::clone).ok())
    }

    pub(crate) fn into_task<F: Future>(self, task: F) -> impl Future<Output = F::Output> {
        match self.0 {
            Some(id) => Either::Left(CURRENT.scope(id, task)),
            None => Either::Right(task),
        }
    }

    pub(crate) fn into_blocking<T>(self, work: impl FnOnce() -> T) -> T {
        match self.0 {
            Some(id) => CURRENT.sync_scope(id, work),
            None => work(),
        }
    }
}

fn text(fresh: &HeaderValue) -> &str {
    fresh.to_str().expect("hex digits and a hyphen are text")
}

/// The caller's id when it is one we can repeat, else a new one.
pub(crate) fn take_over_or_make(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = headers.get(HEADER) {
        let visible = given.as_bytes().iter().all(u8::is_ascii_graphic);
        let sound = visible && (1..=LENGTH_MAX).contains(&given.len());
        // It is logged everywhere, and a card number nowhere.
        if sound && given.to_str().is_ok_and(|id| !has_card_number(id, could_be_card)) {
            return given.clone();
        }
    }
    fresh()
}

/// Unique among processes by its random half and within one by its counter: no system call a request.
fn fresh() -> HeaderValue {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process =
        PROCESS.get_or_init(|| getrandom::u64().expect("the operating system has random bytes to give"));
    // It begins with a letter, so that no process behind this one takes its digits for those of a card.
    let process = process | LETTER;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [0_u8; FRESH_BYTES_MAX];
    let mut free = bytes.as_mut_slice();
    write!(free, "{process:016x}-{number:x}").expect("there is room for every id");
    let length = FRESH_BYTES_MAX - free.len();
    HeaderValue::from_bytes(&bytes[..length]).expect("hex digits and a hyphen are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_over(id: &'static str) -> bool {
        let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_static(id))]);
        take_over_or_make(&headers) == id
    }

    fn hexadecimal(digits: &str) -> u64 {
        u64::from_str_radix(digits, 16).unwrap()
    }

    #[test]
    fn a_card_number_is_no_id() {
        for id in [
            "order-17",
            "1764410847123-4242",
            "42424242-4242-4242-4242-424242424242",
            "a424242424242424-2",
        ] {
            assert!(taken_over(id), "{id}");
        }
        for id in [
            "4242424242424242",
            "4242-4242-4242-4242",
            "card-4242.4242.4242.4242-1",
        ] {
            assert!(!taken_over(id), "{id}");
        }
    }

    #[test]
    fn our_own_ids_are_taken_over() {
        for _ in 0..100 {
            let id = fresh();
            let id = text(&id);
            assert!(!has_card_number(id, |_| true), "{id}");
            let (process, number) = id.split_once('-').unwrap();
            let (process, number) = (hexadecimal(process), hexadecimal(number));
            assert_eq!(format!("{process:016x}-{number:x}"), id);
        }
        for random in [0, 0x1234_5678_9012_3456, u64::MAX] {
            let id = format!("{:016x}-{:x}", random | LETTER, 0x1234_5678);
            assert!(!has_card_number(&id, |_| true), "{id}");
        }
    }
}
