//! `GET /v1/kv`: keys of a range, page by page, all pages of one revision.
//!
//! The first page that has a next one has its revision pinned under a lease, so that compaction leaves the
//! walk alone; later pages renew the pin, which others may share. Invariant: a page that cannot be sure of
//! its revision is refused, never filled with something newer.

use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use kvstore_client::wire::kv::{KeyValue, Page};
use kvstore_client::wire::level::Consistency;
use service::planted::{Bug, is_planted};
use service::problem::{Problem, Result};

use super::auth::Caller;
use super::cursor::{self, Cursor, Question};
use super::keys::text_of;
use super::params::{self, Params, malformed};
use super::{Api, Shared, large, reply};
use crate::command::Record;
use crate::machine::state::prefix_end;
use crate::store::{Direction, RangePage, RangeQuery, ReadPoint, Span, With};

/// What a row says beside key and value.
const ROW_BYTES: usize = 64;

/// What a request asks for, parsed.
struct Asked {
    question: Question,
    limit: usize,
    count_only: bool,
    /// Counting all keys of a large range takes far longer than reading a page of it.
    uncounted: bool,
    at: Option<u64>,
    level: Consistency,
    cursor: Option<Cursor>,
}

pub(super) async fn range(State(api): State<Shared>, request: Request) -> Result<Response> {
    api.in_time(answer(&api, request)).await
}

async fn answer(api: &Api, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    let caller = api.caller(&parts.headers).await?;
    let asked = ask(api, &Params::of(&parts.uri))?;
    let (answer, revision) = match &asked.cursor {
        None => first_page(api, &caller, &asked).await?,
        Some(cursor) => next_page(api, &caller, &asked, cursor).await?,
    };
    page_response(api, &parts.uri, asked.level, revision, answer).await
}

fn ask(api: &Api, params: &Params<'_>) -> Result<Asked> {
    let limits = &api.limits;
    let limit = params.number("limit")?.unwrap_or(limits.range_rows_max as u64);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=limits.range_rows_max).contains(limit));
    let Some(limit) = limit else {
        return Err(malformed(format!(
            "The parameter `limit` is 1 to {}.",
            limits.range_rows_max
        )));
    };
    let given = given_question(params, limits.key_bytes_max)?;
    let cursor = match params.text("cursor")? {
        Some(text) => Some(Cursor::decode(&text, api.store.fingerprint_key())?),
        None => None,
    };
    let question = match &cursor {
        None => given.question,
        Some(cursor) => {
            let same = !given.has_range
                || (given.question.from == cursor.question.from && given.question.to == cursor.question.to);
            if !same {
                return Err(malformed(
                    "The parameter `cursor` belongs to a walk over another range.",
                ));
            }
            cursor.question.clone()
        }
    };
    let count_only = params.flag("count_only")?;
    if count_only && cursor.is_some() {
        return Err(malformed(
            "The parameters `count_only` and `cursor` exclude each other.",
        ));
    }
    let level = match (params.level()?, &cursor) {
        (level @ Consistency::Linearizable, _) | (level, None) => level,
        // Another node may be behind the one that gave the cursor.
        (_, Some(cursor)) => Consistency::AtLeast(cursor.revision),
    };
    Ok(Asked {
        question,
        limit,
        count_only,
        uncounted: params.flag("uncounted")?,
        at: params.revision()?,
        level,
        cursor,
    })
}

struct Given {
    question: Question,
    /// Whether the request names its range, which it need not do beside a cursor.
    has_range: bool,
}

fn given_question(params: &Params<'_>, key_bytes_max: usize) -> Result<Given> {
    let (prefix, from, to) = (params.text("prefix")?, params.text("from")?, params.text("to")?);
    for bound in [&prefix, &from, &to].into_iter().flatten() {
        params::check_bound(bound, key_bytes_max)?;
    }
    let descending = match params.text("order")?.as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(malformed("The parameter `order` is `asc` or `desc`.")),
    };
    let has_range = prefix.is_some() || from.is_some() || to.is_some();
    // Where several bounds are given, the narrower ones count.
    let prefix = prefix.unwrap_or_default();
    let from = from.unwrap_or_default().max(prefix.clone());
    let to = to.filter(|to| !to.is_empty()).map(|to| to.as_bytes().to_vec());
    let to = to.into_iter().chain(prefix_end(prefix.as_bytes())).min();
    let question = Question {
        from: from.as_bytes().to_vec(),
        to,
        descending,
        keys_only: params.flag("keys_only")?,
    };
    Ok(Given { question, has_range })
}

/// A page, before it is put into words.
struct Found {
    rows: Vec<(Bytes, Record)>,
    keys_only: bool,
    count: u64,
    /// Goes on after this page.
    next: Option<String>,
}

async fn read(
    api: &Api,
    caller: &Caller,
    asked: &Asked,
    point: &ReadPoint,
    span: Span,
    at: Option<u64>,
    pinned: bool,
) -> Result<RangePage> {
    let question = &asked.question;
    caller.may_read_range(api, &question.from, question.to.as_deref())?;
    let with = match (asked.count_only, question.keys_only) {
        (true, _) => With::CountOnly,
        (false, true) => With::Keys,
        (false, false) => With::Values,
    };
    let query = RangeQuery {
        span,
        rows_max: asked.limit,
        bytes_max: api.limits.range_bytes_max,
        with,
        at,
        count_all: asked.cursor.is_none() && !asked.uncounted,
        pinned,
    };
    let page = api.store.range(point.clone(), query).await;
    let page = page.map_err(reply::read_problem)?;
    if api.is_newer(point, page.revision).await? {
        caller.may_read_range(api, &question.from, question.to.as_deref())?;
    }
    Ok(page)
}

fn span_of(question: &Question) -> Span {
    let direction = if question.descending {
        Direction::Descending
    } else {
        Direction::Ascending
    };
    Span {
        from: question.from.clone(),
        to: question.to.clone(),
        direction,
    }
}

async fn first_page(api: &Api, caller: &Caller, asked: &Asked) -> Result<(Found, u64)> {
    let point = api.read_point(asked.level).await?;
    let span = span_of(&asked.question);
    let page = read(api, caller, asked, &point, span, asked.at, false).await?;
    api.may_show(&point, page.revision).await?;
    let count = page.count.unwrap_or(page.rows.len() as u64);
    let more = page.more && !asked.count_only;
    let next = match page.rows.last().filter(|_| more) {
        None => None,
        Some((last, _)) => {
            let of_past = asked.at.is_some_and(|at| at < point.revision);
            let pin = api.pins.take(page.revision, of_past).await;
            let cursor = Cursor {
                question: asked.question.clone(),
                revision: page.revision,
                after: last.to_vec(),
                pin,
                count,
            };
            Some(cursor.encode(api.store.fingerprint_key()))
        }
    };
    let rows = if asked.count_only { Vec::new() } else { page.rows };
    Ok((
        Found {
            rows,
            keys_only: asked.question.keys_only,
            count,
            next,
        },
        page.revision,
    ))
}

async fn next_page(api: &Api, caller: &Caller, asked: &Asked, cursor: &Cursor) -> Result<(Found, u64)> {
    let point = api.read_point(asked.level).await?;
    let mut span = span_of(&cursor.question);
    if cursor.question.descending {
        span.to = Some(cursor.after.clone());
    } else {
        span.from.clone_from(&cursor.after);
        // The least key that is greater.
        span.from.push(0);
    }
    let pinned = is_pinned(api, cursor);
    let at = (!is_planted(Bug::PagesMoveOn)).then_some(cursor.revision);
    let page = read(api, caller, asked, &point, span, at, pinned).await?;
    // The pin may have ended while the page was read, and the collector begun right behind it.
    let machine = api.store.machine();
    let compacted = machine.progress_now().compacted.max(machine.compacted());
    if cursor.revision < compacted && !is_pinned(api, cursor) {
        return Err(reply::compacted_problem(compacted));
    }
    let more = page.more && !page.rows.is_empty();
    let mut pin = cursor.pin;
    if more && pin != 0 && machine.leases.has_pin(pin) {
        api.pins.renew(pin);
    } else if more && pin != 0 {
        // Somebody has ended it. What it kept is still there, as this page has just shown.
        let of_past = cursor.revision < point.revision;
        pin = api.pins.take(cursor.revision, of_past).await;
        // Below the floor there is no new one. That of another walk may keep far more than this one needs, so it is kept up
        // only then.
        if let Some(living) = (pin == 0).then(|| api.pins.living(cursor.revision)).flatten() {
            pin = living;
            api.pins.renew(pin);
        }
    }
    let next = page.rows.last().filter(|_| more).map(|(last, _)| {
        let cursor = Cursor {
            after: last.to_vec(),
            pin,
            ..cursor.clone()
        };
        cursor.encode(api.store.fingerprint_key())
    });
    Ok((
        Found {
            rows: page.rows,
            keys_only: cursor.question.keys_only,
            count: cursor.count,
            next,
        },
        cursor.revision,
    ))
}

/// By the pin of the walk, or, where there was no room for that, by any other.
fn is_pinned(api: &Api, cursor: &Cursor) -> bool {
    api.store.machine().leases.pins(cursor.revision)
}

async fn page_response(
    api: &Api,
    uri: &Uri,
    level: Consistency,
    revision: u64,
    found: Found,
) -> Result<Response> {
    let link = found.next.as_ref().map(|cursor| cursor::next_link(uri, cursor));
    let bytes = found
        .rows
        .iter()
        .map(|(key, record)| row_bytes(key, record))
        .sum();
    let text = large::written(api.store.edge(), bytes, move || page_json(revision, found))
        .await
        .map_err(|error| Problem::internal("write a page", error))?;
    let mut response = reply::json_text(StatusCode::OK, text);
    reply::stamp_read(revision, level, response.headers_mut());
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn page_json(revision: u64, found: Found) -> Vec<u8> {
    let keys_only = found.keys_only;
    let page = Page {
        revision,
        more: found.next.is_some(),
        cursor: found.next,
        count: found.count,
        kvs: found
            .rows
            .into_iter()
            .map(|(key, record)| row(&key, record, !keys_only))
            .collect(),
    };
    reply::text(&page)
}

/// Roughly, as JSON.
pub(super) fn row_bytes(key: &[u8], record: &Record) -> usize {
    key.len() + record.value.len() + ROW_BYTES
}

pub(super) fn row(key: &[u8], record: Record, with_value: bool) -> KeyValue {
    KeyValue {
        key: text_of(key).to_owned(),
        value: with_value.then_some(record.value),
        create_revision: record.created,
        mod_revision: record.modified,
        version: record.version,
        lease: record.lease,
    }
}
