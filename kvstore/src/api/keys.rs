//! The routes of single keys, and of all keys under a prefix when they are deleted.
//!
//! These are the hot paths: nothing is built here beyond the answer itself.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::headers;
use kvstore_client::wire::kv::{Created, Deleted};
use kvstore_client::wire::level::Consistency;
use serde::Serialize;
use service::problem::{self, Problem, Result};

use super::once::{once, single};
use super::params::{self, Params, malformed};
use super::reply::{self, etag};
use super::{Api, Shared};
use crate::command::{
    Action, Answer, Condition, Expect, Op, OpResult, Order, Record, Refusal, Reply, Test, Txn,
};
use crate::store::{Got, ReadPoint};

const CREATE_REVISION: HeaderName = HeaderName::from_static(headers::CREATE_REVISION);
const VERSION: HeaderName = HeaderName::from_static(headers::VERSION);
const LEASE: HeaderName = HeaderName::from_static(headers::LEASE);
/// Hex digits that the store puts behind the prefix of a key it makes.
const MADE_BYTES: usize = 16;

#[derive(Serialize)]
struct PutAnswer<'k> {
    key: &'k str,
    revision: u64,
    version: u64,
    created: bool,
}

/// Keys come from parsed text, so they always are text.
pub(super) fn text_of(key: &[u8]) -> &str {
    std::str::from_utf8(key).expect("only UTF-8 keys pass the edge")
}

pub(super) async fn put(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let key = params::key(&parts.uri, api.limits.key_bytes_max)?;
    let lease = Params::of(&parts.uri).number("lease")?.unwrap_or(0);
    let expect = expectation(&parts.headers)?;
    let value = api.body(&parts.headers, body, api.limits.value_bytes_max).await?;
    let once = once(&api, &parts, &value)?;
    let name = key.clone();
    let action = match expect {
        Some(expect) => Action::Put {
            key,
            value,
            lease,
            expect,
        },
        None => if_present(&name, Op::Put { key, value, lease }),
    };
    let reply = api.write(&caller, action, once).await?;
    let (version, created) = match &reply.answer {
        Answer::Put { version, created, .. } => (*version, *created),
        _ => match present_result(&api, &reply)? {
            OpResult::Put { version } => (*version, false),
            _ => unexpected(&reply),
        },
    };
    let answer = PutAnswer {
        key: text_of(&name),
        revision: reply.revision,
        version,
        created,
    };
    let mut response = api.written(StatusCode::OK, &reply, &answer);
    response.headers_mut().insert(header::ETAG, etag(reply.revision));
    Ok(response)
}

pub(super) fn unexpected(reply: &Reply) -> ! {
    panic!(
        "the state machine answered another kind of command: {:?}",
        reply.answer
    )
}

/// What a write to one key does under `If-Match: *`: as a transaction, so that nodes of before understand it too.
fn if_present(key: &Bytes, op: Op) -> Action {
    let condition = Condition {
        key: key.clone(),
        test: Test::Version(0),
        order: Order::Greater,
    };
    Action::Txn(Txn {
        conditions: vec![condition],
        then: vec![op],
        ..Txn::default()
    })
}

/// The one result of that, or that the key is not there.
fn present_result<'r>(api: &Api, reply: &'r Reply) -> Result<&'r OpResult> {
    match &reply.answer {
        Answer::Txn { results, .. } => results
            .first()
            .ok_or_else(|| api.refused(reply, &Refusal::Precondition { modified: 0 })),
        _ => unexpected(reply),
    }
}

/// `If-Match` and `If-None-Match` of a write; `None` is `If-Match: *`, whatever is there.
fn expectation(headers: &HeaderMap) -> Result<Option<Expect>> {
    let if_match = single(headers, "if-match")?;
    let if_none_match = single(headers, "if-none-match")?;
    match (if_match, if_none_match) {
        (None, None) => Ok(Some(Expect::Any)),
        (None, Some(b"*")) => Ok(Some(Expect::Absent)),
        (Some(b"*"), None) => Ok(None),
        (None, Some(_)) => Err(malformed(
            "On a write the header `If-None-Match` can only be `*`.",
        )),
        (Some(tag), None) => expected_revision(tag).map(|revision| Some(Expect::Modified(revision))),
        (Some(_), Some(_)) => Err(malformed(
            "The headers `If-Match` and `If-None-Match` exclude each other.",
        )),
    }
}

/// The revision that a strong tag names. Weak tags, and numbers that no revision can have, are 0: no
/// key ever has that one, so that they never match, but get the present tag as an answer.
fn expected_revision(tag: &[u8]) -> Result<u64> {
    let (weak, tag) = tag.strip_prefix(b"W/").map_or((false, tag), |tag| (true, tag));
    let digits = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
    let digits = digits.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    let Some(digits) = digits else {
        return Err(malformed(
            "The header `If-Match` must be one revision in quotes, such as \"42\", or `*`.",
        ));
    };
    let canonical = digits[0] != b'0' && !weak;
    let revision = std::str::from_utf8(digits)
        .ok()
        .filter(|_| canonical)
        .and_then(|digits| digits.parse().ok());
    Ok(revision.unwrap_or(0))
}

pub(super) async fn read(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let key = params::key(&parts.uri, api.limits.key_bytes_max)?;
    let params = Params::of(&parts.uri);
    let (level, at) = (params.level()?, params.revision()?);
    let point = api.read_point(level).await?;
    caller.may_read_key(&api, &key)?;
    let mut got = api.store.get(&point, &key, at).map_err(reply::read_problem)?;
    if api.is_newer(&point, got.revision).await? {
        caller.may_read_key(&api, &key)?;
    }
    got = shown_at_once(&point, got);
    api.may_show(&point, got.revision).await?;
    let Some(record) = got.record else {
        let problem = Problem::new(problem::KEY_NOT_FOUND, "There is no such key at this revision.");
        return Err(reply::stamp_absent(problem, got.revision, level));
    };
    Ok(value_response(&parts, record, got.revision, level))
}

/// A key that every mirror has is the newest there is: it may be shown as of what all of them have, and need not wait
/// for writes to other keys.
fn shown_at_once(point: &ReadPoint, got: Got) -> Got {
    match (&got.record, point.mirrored) {
        (Some(record), Some(mirrored)) if record.modified <= mirrored => Got {
            revision: got.revision.min(mirrored),
            ..got
        },
        _ => got,
    }
}

fn value_response(parts: &Parts, record: Record, revision: u64, level: Consistency) -> Response {
    let unchanged = is_known(&parts.headers, record.modified);
    let mut response = if unchanged {
        Response::default()
    } else {
        Response::new(Body::from(record.value))
    };
    let headers = response.headers_mut();
    headers.reserve(reply::HEADERS);
    if !unchanged {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
    }
    headers.insert(header::ETAG, etag(record.modified));
    headers.insert(CREATE_REVISION, HeaderValue::from(record.created));
    headers.insert(VERSION, HeaderValue::from(record.version));
    headers.insert(LEASE, HeaderValue::from(record.lease));
    reply::stamp_read(revision, level, headers);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response
}

/// Whether `If-None-Match` names this revision; weak tags count too (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, modified: u64) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH);
    let mut tags = lists
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    tags.any(|tag| tag.trim() == "*" || headers::revision_of_etag(tag) == Some(modified))
}

pub(super) async fn delete(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let key = params::key(&parts.uri, api.limits.key_bytes_max)?;
    let expect = expectation(&parts.headers)?;
    if expect == Some(Expect::Absent) {
        return Err(malformed("Deleting takes `If-Match`, not `If-None-Match`."));
    }
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let action = match expect {
        Some(expect) => Action::Delete { key, expect },
        None => if_present(&key, Op::Delete { key: key.clone() }),
    };
    let reply = api.write(&caller, action, once).await?;
    let count = match reply.answer {
        Answer::Deleted { count } => count,
        _ => match present_result(&api, &reply)? {
            OpResult::Deleted { count } => *count,
            _ => unexpected(&reply),
        },
    };
    Ok(deleted_so_many(&api, &reply, count))
}

pub(super) fn deleted(api: &Api, reply: &Reply) -> Response {
    let Answer::Deleted { count } = reply.answer else {
        unexpected(reply)
    };
    deleted_so_many(api, reply, count)
}

fn deleted_so_many(api: &Api, reply: &Reply, count: u64) -> Response {
    api.written(
        StatusCode::OK,
        reply,
        &Deleted {
            revision: reply.revision,
            deleted: count,
        },
    )
}

pub(super) async fn delete_prefix(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let prefix = Params::of(&parts.uri)
        .text("prefix")?
        .filter(|prefix| !prefix.is_empty());
    let Some(prefix) = prefix else {
        let detail = "Say which keys to delete: ?prefix=. An empty prefix would be all of them.";
        return Err(Problem::new(problem::MISSING_PREFIX, detail));
    };
    params::check_bound(&prefix, api.limits.key_bytes_max)?;
    if expectation(&parts.headers)? != Some(Expect::Any) {
        return Err(malformed(
            "Conditions in headers are for single keys; use POST /v1/txn.",
        ));
    }
    let body = api.json_body(&parts.headers, body).await?;
    let once = once(&api, &parts, &body)?;
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    let reply = api.delete(&caller, Action::DeletePrefix { prefix }, once).await?;
    Ok(deleted(&api, &reply))
}

/// Stores the body under a key that the store makes.
pub(super) async fn create(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let params = Params::of(&parts.uri);
    let prefix = params.text("prefix")?.unwrap_or_default();
    params::check_bound(&prefix, api.limits.key_bytes_max - MADE_BYTES)?;
    params::check_location(&prefix)?;
    let lease = params.number("lease")?.unwrap_or(0);
    if expectation(&parts.headers)? != Some(Expect::Any) {
        return Err(malformed(
            "The key is new in any case: this route takes no conditions.",
        ));
    }
    let value = api.body(&parts.headers, body, api.limits.value_bytes_max).await?;
    let once = once(&api, &parts, &value)?;
    let seed = getrandom::u64().expect("the operating system has random bytes to give");
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    let reply = api
        .write(
            &caller,
            Action::Create {
                prefix,
                seed,
                value,
                lease,
            },
            once,
        )
        .await?;
    let Answer::Put { key, .. } = &reply.answer else {
        unexpected(&reply)
    };
    let key = text_of(key).to_owned();
    let location = HeaderValue::try_from(params::key_path(&key)).expect("an encoded path is visible ASCII");
    let mut response = api.written(
        StatusCode::CREATED,
        &reply,
        &Created {
            key,
            revision: reply.revision,
        },
    );
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::ETAG, etag(reply.revision));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_one_revision_in_quotes() {
        let read = |tag: &str| expected_revision(tag.as_bytes()).ok();
        assert_eq!(read("\"42\""), Some(42));
        for never in ["W/\"42\"", "\"0\"", "\"042\"", "\"99999999999999999999999\""] {
            assert_eq!(read(never), Some(0), "{never}");
        }
        for bad in ["42", "*", "", "\"\"", "\"-1\"", "\"4\", \"5\"", "\"4", "'4'"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_revisions_stand_in_lists() {
        let known = |list: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static(list));
            is_known(&headers, 42)
        };
        assert!(known("\"42\"") && known("*") && known("\"1\", W/\"42\"") && known("\"x\",\"42\""));
        assert!(!known("\"4\"") && !known("42") && !known("\"4\", \"2\""));
    }
}
