//! Reads the parts that several requests have in common, gathers their faults, and writes answers.
//! Invariant: what is returned is right or the fault is noted.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use payment_client::{Currency, Money};
use serde::Serialize;
use serde_json::value::RawValue;
use service::fields::Fields;
use service::idempotency::REPLAYED;
use service::problem::Result;
use service::query::{self, Query};

use crate::domain::{Texts, check_text};
use crate::shop::QUANTITY_MAX;
use crate::shop::views::tag;
use crate::store::Reply;

const PAGE_DEFAULT: u64 = 50;
const PAGE_MAX: u64 = 200;

/// A text of a product; `None` where it is absent, which is a fault only if it is required.
pub(super) fn text(fields: &mut Fields, name: &str, kind: Texts) -> Option<String> {
    let text = fields.optional_text(name)?;
    match check_text(&text, kind) {
        Ok(text) => Some(text),
        Err(fault) => {
            fields.fault(name, fault);
            None
        }
    }
}

/// An amount from the digits as they were sent, at least one minor unit.
pub(super) fn price(fields: &mut Fields, name: &str, currency: Currency, max: u64) -> Option<i64> {
    let literal = fields.raw(name)?.get().to_owned();
    let money = match Money::of_literal(&literal, currency) {
        Ok(money) => money,
        Err(fault) => {
            fields.fault(name, fault);
            return None;
        }
    };
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    if !(1..=max).contains(&money.minor) {
        let bounds = [1, max].map(|minor| Money::new(minor, currency));
        fields.fault(
            name,
            format_args!("must be {} to {} {currency}", bounds[0], bounds[1]),
        );
        return None;
    }
    Some(money.minor)
}

/// A whole number within bounds.
pub(super) fn whole(fields: &mut Fields, name: &str, min: i64, max: i64) -> Option<i64> {
    let expected = format!("a whole number from {min} to {max}");
    let raw = fields.raw(name)?.get().to_owned();
    let number = whole_of(&raw).filter(|number| (min..=max).contains(number));
    if number.is_none() {
        fields.fault(name, format_args!("must be {expected}"));
    }
    number
}

/// `3` and also `3.0`, which is the same number to whoever sent it.
pub(super) fn whole_of(literal: &str) -> Option<i64> {
    let digits = match literal.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => literal,
    };
    digits.parse().ok()
}

pub(super) fn quantity(fields: &mut Fields, min: i64) -> Option<i64> {
    whole(fields, "quantity", min, QUANTITY_MAX)
}

/// An id, which classrooms write as a number as often as not.
pub(super) fn id(raw: &RawValue) -> Option<String> {
    if let Ok(text) = serde_json::from_str::<String>(raw.get()) {
        return Some(text);
    }
    let digits = raw.get().bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| raw.get().to_owned())
}

pub(super) fn product_id(fields: &mut Fields) -> Option<String> {
    fields.require("productId");
    let raw = fields.raw("productId")?.to_owned();
    let id = id(&raw);
    if id.is_none() {
        fields.fault("productId", "must be a string or a whole number");
    }
    id
}

pub(super) fn limit(query: &Query<'_>) -> Result<usize> {
    let limit = query.number("limit")?.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(query::malformed(format!(
            "The parameter `limit` is a number from 1 to {PAGE_MAX}."
        )));
    }
    Ok(usize::try_from(limit).expect("it is small"))
}

/// An answer that no cache may keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("answers have only text keys and plain values");
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

/// Says where the next page is.
pub(super) fn link_next(response: &mut Response, uri: &Uri, cursor: &str) {
    let link = format!("<{}>; rel=\"next\"", query::next_page(uri, cursor));
    if let Ok(link) = HeaderValue::try_from(link) {
        response.headers_mut().insert(header::LINK, link);
    }
}

impl Reply {
    pub(super) fn into_answer(self) -> Response {
        let status = StatusCode::from_u16(self.kept.status).expect("the shop answers with valid statuses");
        let mut response = json(status, &self.kept.body);
        let headers = response.headers_mut();
        if self.replayed {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if let Some(location) = self.kept.location
            && let Ok(location) = HeaderValue::try_from(location)
        {
            headers.insert(header::LOCATION, location);
        }
        if let Some(revision) = self.etag {
            headers.insert(header::ETAG, tag(revision));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_whole() {
        for (literal, number) in [("3", Some(3)), ("3.0", Some(3)), ("-1", Some(-1))] {
            assert_eq!(whole_of(literal), number, "{literal}");
        }
        for literal in ["3.5", "1e2", "\"3\"", "99999999999999999999", "null", "3."] {
            assert_eq!(whole_of(literal), None, "{literal}");
        }
    }
}
